"""The list of seeded faults keeps up with the code (tests/seeded_faults.py runs it)."""

import re
from collections import Counter

from tests.seeded_faults import ROOT, faults


def test_every_fault_is_a_place_in_the_code_and_names_test_files() -> None:
    for fault in faults():
        assert (ROOT / fault.file).read_text().count(fault.old) == 1, f"{fault.what}: not once in {fault.file}"
        assert fault.new != fault.old
        assert fault.tests and all((ROOT / name).is_file() for name in fault.tests), fault.what


def test_the_faults_are_spread_over_all_packages() -> None:
    counts = Counter(fault.file.partition("/")[0] for fault in faults())
    assert set(counts) == {"baselines", "benchmark", "flexiact", "metrics", "reports"} and counts.total() >= 30
    assert min(counts.values()) >= 3


def test_the_table_of_results_has_every_fault_and_none_was_missed() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \| `(.+?)` \| (.+) \|$", (ROOT / "docs/faults.md").read_text(), re.M)
    assert [row[:3] for row in rows] == [(str(i), f.what, f.file) for i, f in enumerate(faults(), start=1)]
    assert not [what for _, what, _, found in rows if "not found" in found]
