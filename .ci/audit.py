"""Ask whether a pinned dependency has a known vulnerability: ``audit.py CONSTRAINTS``.

A vulnerability fails, unless it is in :data:`ACCEPTED`. Where the advisories cannot be reached, as on machines without
internet, this is said loudly, and nothing fails.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Vulnerabilities that do not concern this project, by id, each with the reason.
ACCEPTED: Mapping[str, str] = {}

TIMEOUT_S = 300


def main() -> None:
    """Audit; exit with what is vulnerable, if anything is."""
    report = audited(Path(sys.argv[1]))
    text, fails = verdict(report, ACCEPTED)
    print(text)
    sys.exit(1 if fails else 0)


def audited(constraints: Path) -> Mapping[str, Any] | None:
    """Return pip-audit's report on all pinned versions; None where it could reach nobody."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(constraints), "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return None
    try:
        report: Mapping[str, Any] = json.loads(done.stdout)
    except ValueError:
        print(done.stderr[-500:])
        if re.search(r"ConnectionError|Connection|Timeout|HTTPError|Max retries", done.stderr):
            return None
        sys.exit("expected a report of pip-audit, found none; see above")
    return report


def verdict(report: Mapping[str, Any] | None, accepted: Mapping[str, str]) -> tuple[str, bool]:
    """Return what a report says, and whether that fails.

    Args:
        report: As ``pip-audit --format json`` prints it; None where the advisories could not be reached.
        accepted: Ids that do not fail, with the reasons.

    """
    dependencies = [] if report is None else report["dependencies"]
    skipped = [each["name"] for each in dependencies if "skip_reason" in each]
    found = [(each, vulnerability) for each in dependencies for vulnerability in each.get("vulns", ())]
    lines, fails = [], False
    for each, vulnerability in found:
        ids = [vulnerability["id"], *vulnerability.get("aliases", ())]
        reason = next((accepted[name] for name in ids if name in accepted), None)
        fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no version yet"
        lines.append(
            f"{each['name']} {each['version']}: {' '.join(ids)}, fixed in {fixed}"
            + (f"; accepted: {reason}" if reason else "; renew constraints.txt, or accept it with a reason")
        )
        fails = fails or reason is None
    if not dependencies or len(skipped) == len(dependencies):
        lines.append(
            "!!! NOT AUDITED: no advisories can be reached from here. Run .ci/audit.py where there is internet."
        )
    elif skipped:
        lines.append(f"!!! NOT AUDITED, since nobody knows them here: {', '.join(skipped)}")
    if not lines:
        lines.append(f"{len(dependencies)} dependencies, no known vulnerability")
    return "\n".join(lines), fails


if __name__ == "__main__":
    main()
