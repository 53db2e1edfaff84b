"""Multi-fidelity search: proposals are scored on a few images first, and only the best of them on all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.errors import SearchError
from autoprune.evaluation.metrics import Scores


@dataclass(frozen=True, slots=True)
class Screening:
    """How proposals are screened, batch by batch.

    First comes an audit: the first proposals are scored both ways. Where the cheap scores do not rank as the full ones
    do, screening turns itself off. Probes are never screened.

    Attributes:
        images: A cheap score is taken on the first so many search images, and costs that share of an evaluation.
        keep: Share of each batch that is then scored on all, at least one proposal.
        audit: How many proposals are scored both ways to begin with.
        threshold: Least Kendall tau of these for which screening stays on.

    """

    images: int
    keep: float = 0.25
    audit: int = 16
    threshold: float = 0.5

    def promoted(self, proposals: int) -> int:
        """Return how many of a batch of `proposals` are scored on all images."""
        return max(1, math.floor(round(self.keep * proposals, 9)))

    def check(self, search_images: int, batch: int) -> None:
        """Hold the settings against a search.

        Raises:
            SearchError: A number out of range, or nothing would be saved.

        """
        if not 1 <= self.images < search_images:
            raise SearchError(
                f"screening needs at least 1 and fewer than all {search_images} search images, found {self.images}"
            )
        if not 0 < self.keep < 1 or not -1 <= self.threshold <= 1 or self.audit < 2:
            raise SearchError(
                "screening keeps a share between 0 and 1, with a threshold between -1 and 1 after an audit of at least "
                f"2 proposals; found {self.keep}, {self.threshold} and {self.audit}"
            )
        kept = self.promoted(batch)
        if batch * self.images + kept * search_images >= batch * search_images:
            raise SearchError(
                f"screening saves nothing: of a batch of {batch}, {kept} would be scored on {search_images} images "
                f"after all were scored on {self.images}; use larger batches, fewer images, or keep fewer"
            )


@dataclass(frozen=True, slots=True)
class ScreeningRecord:
    """What screening did in a search.

    Attributes:
        images: Search images of a cheap score.
        screened_out: Trials that were scored cheaply only.
        full: Trials that were scored on all images, probes included.
        pairs: Trials that were scored both ways.
        kendall_tau: Rank correlation (tau-b) of cheap and full scores over all pairs; None where it is not defined.
            After the audit only the best reach a full score, which lowers it.
        audit_tau: The same over the audit alone, by which screening was judged; None before its end.
        turned_off: Why screening was turned off; None if it was not.

    """

    images: int
    screened_out: int
    full: int
    pairs: int
    kendall_tau: float | None
    audit_tau: float | None
    turned_off: str | None


class Screener:
    """Screens the batches of one search, and keeps the record."""

    def __init__(self, screening: Screening | None, search_images: int) -> None:
        """Screen as `screening` says; None screens nothing."""
        self._screening = screening
        self._search_images = search_images
        self._cheap: list[Scores] = []
        self._full: list[Scores] = []
        self._audit_tau: float | None = None
        self._ending = False
        self._turned_off: str | None = None

    @property
    def auditing(self) -> bool:
        """Whether the next proposals are scored both ways."""
        return self.images is not None and len(self._cheap) < self._audit

    @property
    def images(self) -> int | None:
        """Search images of a cheap score; None when nothing is screened (any more)."""
        return None if self._screening is None or self._turned_off or self._ending else self._screening.images

    @property
    def _audit(self) -> int:
        assert self._screening is not None
        return self._screening.audit

    def promoted(self, proposals: int) -> int:
        """Return how many of `proposals` competing ones will be scored on all images."""
        if self._screening is None or self.images is None or self.auditing:
            return proposals
        return min(proposals, self._screening.promoted(proposals))

    def screens(self, proposals: int) -> bool:
        """Tell whether a batch of `proposals` competing ones is scored cheaply first."""
        return self.images is not None and (self.auditing or self.promoted(proposals) < proposals)

    def cost(self, proposals: int, probes: int = 0) -> int:
        """Return what a batch costs, in images: of so many competing `proposals`, and of `probes`."""
        cheap = proposals * self.images if self.images is not None and self.screens(proposals) else 0
        return cheap + (self.promoted(proposals) + probes) * self._search_images

    def affordable(self, proposals: int, left: int) -> int:
        """Return how many of `proposals` competing ones may be asked for with `left` images to spend.

        Where those do not suffice to score one both ways, but on all images, screening ends.
        """
        most = min(proposals, self._audit - len(self._cheap)) if self.auditing else proposals
        affordable = next((n for n in range(most, 0, -1) if self.cost(n) <= left), 0)
        self._ending = affordable == 0
        return 1 if affordable == 0 and left >= self._search_images else affordable

    def best(self, cheap: Sequence[Scores]) -> list[bool]:
        """Tell which of a batch are scored on all images; of equals the earlier."""
        ranked = sorted(range(len(cheap)), key=lambda i: (-cheap[i].objective, cheap[i].regret, i))
        chosen = set(ranked[: self.promoted(len(cheap))])
        return [i in chosen for i in range(len(cheap))]

    def learn(self, cheap: Scores, full: Scores) -> None:
        """Take both scores of a proposal; the last of the audit decides whether screening stays on."""
        auditing = self.auditing
        self._cheap.append(cheap)
        self._full.append(full)
        if not auditing or self.auditing:
            return
        assert self._screening is not None
        self._audit_tau = kendall_tau(self._cheap, self._full)
        if self._audit_tau is None:
            self._turned_off = f"the scores of the {self._audit} audited proposals are all the same"
        elif self._audit_tau < self._screening.threshold:
            self._turned_off = (
                f"on {self._screening.images} images the {self._audit} audited proposals rank otherwise than on all "
                f"{self._search_images}: Kendall's tau is {self._audit_tau:.2f}, below {self._screening.threshold:g}"
            )

    def record(self, screened_out: int, full: int) -> ScreeningRecord | None:
        """Return the record of a search with so many trials screened out and fully scored; None without screening."""
        if self._screening is None:
            return None
        return ScreeningRecord(
            self._screening.images,
            screened_out,
            full,
            len(self._cheap),
            kendall_tau(self._cheap, self._full),
            self._audit_tau,
            self._turned_off,
        )


def kendall_tau(first: Sequence[Scores], second: Sequence[Scores]) -> float | None:
    """Return the tau of :func:`rank_correlation`, or None."""
    found = rank_correlation(first, second)
    return None if found is None else found[0]


def rank_correlation(first: Sequence[Scores], second: Sequence[Scores]) -> tuple[float, float] | None:
    """Return Kendall's tau-b of two scorings of the same proposals, and its p-value (two-sided).

    Equal objectives are told apart by regret. None where it is not defined: fewer than two proposals, or a scoring that
    tells none from another.
    """
    from scipy.stats import kendalltau  # takes half a second to import, which searches without screening need not wait

    if len(first) < 2:
        return None
    found = kendalltau(_ranks(first), _ranks(second))
    tau, p_value = float(found.statistic), float(found.pvalue)
    return None if math.isnan(tau) else (tau, p_value)


def _ranks(scores: Sequence[Scores]) -> list[int]:
    """Return the rank of each among the different scores, the worst first."""
    keys = [(score.objective, -score.regret) for score in scores]
    ranks = {key: rank for rank, key in enumerate(sorted(set(keys)))}
    return [ranks[key] for key in keys]
