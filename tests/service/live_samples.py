"""Lines of a job's log of trials for tests: made up, but as a job would write them."""

from autoprune.service.results.job_result import TrialView
from autoprune.service.results.live_search import LiveHead, LiveTrial
from tests.service.result_samples import sample_result


def head_line() -> str:
    """The first line."""
    result = sample_result()
    return LiveHead(**{name: getattr(result, name) for name in LiveHead.model_fields}).model_dump_json() + "\n"


def trial_line(number: int, objective: float, *, policy: str = "exact", probe: bool = False) -> str:
    """A line of one trial, which keeps as many units of the first group as its number."""
    view = TrialView(number=number, objective=objective, cost={"macs": 200_000, "params": 9_000}, probe=probe)
    return LiveTrial(policy=policy, kept=[number, 8, 9], trial=view).model_dump_json() + "\n"
