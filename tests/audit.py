"""`python -m tests.audit`: known vulnerabilities of what is installed, by pip-audit.

Where no advisories can be had, that is said and nothing fails.
"""

from __future__ import annotations

import json
import subprocess
import sys

TIMEOUT_S = 120


def main() -> int:
    """Return 1 if an installed package has a known vulnerability, else 0."""
    words = ["-f", "json", "--skip-editable", "--progress-spinner", "off", "--timeout", "10"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *words],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        found = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError) as error:
        print(f"pip-audit skipped: no advisories can be had here ({type(error).__name__})")
        return 0
    audited = [each for each in found if "skip_reason" not in each]
    if not audited:
        print("pip-audit skipped: no advisories can be had here")
        return 0
    flaws = [(each, flaw) for each in audited for flaw in each.get("vulns", ())]
    for each, flaw in flaws:
        fixed = ", ".join(flaw.get("fix_versions", ())) or "no release yet"
        print(f"{each['name']} {each['version']}: {flaw['id']}, fixed in {fixed}")
    print(f"pip-audit: {len(audited)} packages, {len(flaws)} known vulnerabilities")
    return 1 if flaws else 0


if __name__ == "__main__":
    sys.exit(main())
