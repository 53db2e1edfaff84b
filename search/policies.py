"""The policies by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from autoprune.errors import UnknownNameError
from autoprune.problem import PruningProblem
from autoprune.search.evolution import Evolution
from autoprune.search.exact import Exact
from autoprune.search.global_ranking import GlobalRanking
from autoprune.search.netadapt import NetAdapt
from autoprune.search.random_search import RandomSearch
from autoprune.search.samplers import SAMPLERS, SamplerSearch
from autoprune.search.searcher import Searcher
from autoprune.search.sensitivity import Sensitivity
from autoprune.search.uniform import Uniform

_Make = Callable[[PruningProblem, int, int], Searcher]


def _amc(problem: PruningProblem, seed: int, evaluations: int) -> Searcher:
    """Make AMC; importing its agent takes seconds, which the other policies need not wait for."""
    from autoprune.search.amc.searcher import Amc

    return Amc(problem, seed, evaluations)


def _metapruning(problem: PruningProblem, seed: int, evaluations: int) -> Searcher:
    """Make the search of MetaPruning; what sets it apart from evolution is the evaluator that a job gives it."""
    return Evolution(problem, seed, evaluations, name="metapruning")


def _sampler(name: str) -> _Make:
    """Return how a search with one of Optuna's samplers is made."""
    return lambda problem, seed, evaluations: SamplerSearch(problem, seed, evaluations, name)


#: How each policy is made for (problem, seed, evaluations).
POLICIES: Mapping[str, _Make] = MappingProxyType(
    {
        "uniform": lambda problem, seed, evaluations: Uniform(problem),
        "random": lambda problem, seed, evaluations: RandomSearch(problem, seed),
        "sensitivity": lambda problem, seed, evaluations: Sensitivity(problem, evaluations),
        "global": lambda problem, seed, evaluations: GlobalRanking(problem),
        "exact": Exact,
        "netadapt": lambda problem, seed, evaluations: NetAdapt(problem, evaluations),
        "amc": _amc,
        "evolution": Evolution,
        "metapruning": _metapruning,
        **{name: _sampler(name) for name in SAMPLERS},
    }
)

#: Policies that draw nothing: with any seed they take the same way.
WITHOUT_SEED = frozenset({"uniform", "sensitivity", "global", "netadapt"})


def make_searcher(name: str, problem: PruningProblem, *, seed: int, evaluations: int) -> Searcher:
    """Return a fresh searcher for one search of at most `evaluations` trials.

    Raises:
        UnknownNameError: No such policy.
        SearchError: The policy needs more evaluations, or the seed is below 0.

    """
    if name not in POLICIES:
        raise UnknownNameError("policy", name, POLICIES)
    return POLICIES[name](problem, seed, evaluations)
