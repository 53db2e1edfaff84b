"""What the searches of a job have found so far, as the process that runs them writes it and others read it.

One JSON document per line: the head first, then every trial as soon as it is known. Whoever reads disturbs nobody.
"""

from pathlib import Path

from autoprune.service.results.job_result import GroupView, ScoresView, TrialView, Value

#: Its file, in the folder of a job and in that of every seed of a comparison: there while the job is not done.
LIVE = ".live.jsonl"


class LiveHead(Value):
    """What does not change during the searches; attributes as of a job's result."""

    cost: dict[str, int]
    limits: dict[str, int]
    groups: list[GroupView]
    decision_groups: list[str]
    search: ScoresView


class LiveTrial(Value):
    """A trial, who proposed it, and what it keeps.

    Attributes:
        kept: Units kept per decision group, in order.

    """

    policy: str
    kept: list[int]
    trial: TrialView


class LivePolicy(Value):
    """One search on its way.

    Attributes:
        policy: Name of the policy, with the seed of the search where it has one.
        kept: Units kept per decision group by the best candidate so far, by group name; none before there is one.
        best: That candidate; None before there is one.

    """

    policy: str
    trials: list[TrialView]
    kept: dict[str, int]
    best: TrialView | None

    @property
    def front(self) -> list[int]:
        """No trial: which ones make up a front is known when the search is done."""
        return []


class LiveSearch(LiveHead):
    """All searches of a job on their way."""

    outcomes: list[LivePolicy]


def read_live(folder: Path) -> LiveSearch | None:
    """Return what the searches in a job's `folder` found so far; None where none has begun, or all are done."""
    whole = _lines(folder / LIVE)
    if not whole:
        return None
    known = LiveHead.model_validate_json(whole[0])
    lines = [("", line) for line in whole[1:]]
    for file in sorted(folder.glob(f"seed-*/{LIVE}"), key=lambda file: int(_seed(file))):
        lines += [(f", seed {_seed(file)}", line) for line in _lines(file)]
    searches: dict[str, list[LiveTrial]] = {}
    for suffix, line in lines:
        said = LiveTrial.model_validate_json(line)
        searches.setdefault(said.policy + suffix, []).append(said)
    outcomes = [_policy(name, trials, known.decision_groups) for name, trials in searches.items()]
    return LiveSearch(**dict(known), outcomes=outcomes)


def _lines(file: Path) -> list[str]:
    """Return the complete lines of a file; none where it is gone."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return text.split("\n")[:-1]  # after the last newline there may be half a line


def _seed(file: Path) -> str:
    """Return the seed that the file of a search is of."""
    return file.parent.name.removeprefix("seed-")


def _policy(name: str, said: list[LiveTrial], groups: list[str]) -> LivePolicy:
    """Put one search together; of equal candidates the first is the best."""
    best = max((each for each in said if each.trial.competes), key=lambda each: each.trial.objective, default=None)
    return LivePolicy(
        policy=name,
        trials=[each.trial for each in said],
        kept={} if best is None else dict(zip(groups, best.kept, strict=True)),
        best=None if best is None else best.trial,
    )
