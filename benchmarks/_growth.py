"""How the time of an evaluation grows with the network's depth, with the images and with what is kept."""

from _bench import RESNET20, Bench, middle, note, share, table, told

from autoprune.evaluation.evaluator import RECALIBRATION_IMAGES

#: Networks that differ in depth alone.
DEPTHS = ("resnet20_cifar", "resnet32_cifar", "resnet56_cifar", "resnet110_cifar")


def by_layers(bench: Bench) -> str:
    """Compare networks that differ in depth alone; their weights are random, which takes no other time."""
    images = min(500, bench.images)
    cases = [bench.candidates(name, images) for name in DEPTHS]
    rounds = [[case.measure(case.uniform(0.5, turn)) for case in cases] for turn in told("layers", range(bench.rounds))]
    rows = []
    for i, (name, case) in enumerate(zip(DEPTHS, cases, strict=True)):
        pairs = [(times[i], times[0]) for times in rounds]
        rows.append(
            (
                name.split("_")[0],
                len(case.problem.groups),
                middle(t.evaluation / first.evaluation for t, first in pairs),
                middle(t.passes / first.passes for t, first in pairs),
                middle((t.building + t.solving) / (first.building + first.solving) for t, first in pairs),
                share(t.overhead for t, _ in pairs),
            )
        )
    head = ("network", "groups", "evaluation", "forward passes", "building and reconstruction", "all but passes")
    return table(head, rows) + note(
        f"Times are relative to the first line's. Half of every group kept, {images:,} search images, "
        f"{RECALIBRATION_IMAGES} for recalibration; {bench.rounds} rounds."
    )


def by_images(bench: Bench) -> str:
    """Compare evaluations on more and fewer images."""
    case = bench.candidates(RESNET20, bench.images)
    numbers = sorted({min(n, bench.images) for n in (500, 1000, 2000)})
    rounds = [
        [case.measure(case.uniform(0.5, 10 * turn + i), n) for i, n in enumerate(numbers)]
        for turn in told("images", range(bench.rounds))
    ]
    rows = []
    for i, n in enumerate(numbers):
        pairs = [(times[i], times[0]) for times in rounds]
        rows.append(
            (
                f"{n:,}",
                middle(t.evaluation / first.evaluation for t, first in pairs),
                middle(t.passes / first.passes for t, first in pairs),
                share(t.overhead for t, _ in pairs),
            )
        )
    return table(("search images", "evaluation", "forward passes", "all but passes"), rows) + note(
        "Times are relative to the first line's. ResNet-20, half of every group kept; "
        f"{RECALIBRATION_IMAGES} images for recalibration every time; {bench.rounds} rounds."
    )


def by_width(bench: Bench) -> str:
    """Compare wide and narrow candidates."""
    case = bench.candidates(RESNET20, bench.images)
    fractions = (0.25, 0.5, 0.75)
    rounds = [
        ([case.measure(case.uniform(kept, turn)) for kept in fractions], case.unpruned())
        for turn in told("widths", range(bench.rounds))
    ]
    rows = []
    for i, kept in enumerate(fractions):
        pairs = [(times[i], whole) for times, whole in rounds]
        rows.append(
            (
                f"{kept:.0%}",
                middle(t.evaluation / whole for t, whole in pairs),
                middle(t.passes / whole for t, whole in pairs),
                share(t.overhead for t, _ in pairs),
            )
        )
    return table(("kept of every group", "evaluation", "forward passes", "all but passes"), rows) + note(
        f"Times are relative to forward passes of the unpruned network. ResNet-20, {bench.images:,} search images; "
        f"{bench.rounds} rounds."
    )
