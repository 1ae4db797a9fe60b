from collections import Counter

from tests import processor_time


def test_what_is_slow_is_listed_and_what_did_not_run_stays(tmp_path, monkeypatch):
    path = tmp_path / "slow.txt"
    path.write_text("a.py::faster 3.0\na.py::left_out 4.0\na.py::skipped 5.0\n")
    monkeypatch.setattr(processor_time, "LIST", path)
    own = Counter({
        "a.py::faster": 0.1, "a.py::skipped": 0.0, "b.py::slow": 0.3,
        "b.py::cases[0]": 0.3, "b.py::cases[1]": 0.0,
        "b.py::many[0]": 2.0, **{f"b.py::many[{i}]": 0.1 for i in range(1, 20)},
        "b.py::shares": 0.1,
    })  # fmt: skip
    needed = Counter(own)
    needed["b.py::shares"] += 0.2
    processor_time.write(own, needed, {"a.py::skipped"})
    assert processor_time.listed() == {
        "a.py::left_out": 4.0,
        "a.py::skipped": 5.0,
        "b.py::many": 3.9,
        "b.py::shares": 0.1,
        "b.py::slow": 0.3,
    }
