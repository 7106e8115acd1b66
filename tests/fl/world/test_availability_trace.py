from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from math import inf
from pathlib import Path

import pytest

from distreal_dse.errors import InputError
from fl.world.availability import Timeline, TraceAvailability
from fl.world.devices import Device

HEADER = "device,time,availability\n"


def written(folder: Path, rows: str, header: str = HEADER) -> str:
    path = folder / "trace.csv"
    path.write_text(header + rows, encoding="utf-8")
    return str(path)


def timeline(source: TraceAvailability, device: int = 0, seed: int = 0) -> Timeline:
    return source.timeline(Device(device, "weak", 1.0), 1, 0.0, 1.0, seed)


def test_a_row_holds_until_the_next_one(tmp_path: Path) -> None:
    found = timeline(TraceAvailability(written(tmp_path, "a,0,0.5\na,4,0\na,7,1\na,10,0.3\n")))
    assert [found.at(time) for time in (0, 3.9, 4, 6.5, 7, 9.9)] == [
        (0.5, 4), (0.5, 4), (0, 7), (0, 7), (1, 10), (1, 10),
    ]  # fmt: skip
    assert found.next_free(5) == 7


def test_the_last_row_ends_the_trace_and_it_begins_anew(tmp_path: Path) -> None:
    found = timeline(TraceAvailability(written(tmp_path, "a,0,0.5\na,4,0.8\na,10,0.3\n")))
    assert [found.at(time) for time in (10, 14, 104.5)] == [(0.5, 14), (0.8, 20), (0.8, 110)]


def test_before_the_first_row_holds_what_the_last_one_says(tmp_path: Path) -> None:
    found = timeline(TraceAvailability(written(tmp_path, "a,2,0.5\na,4,0.8\na,10,0.3\n")))
    assert [found.at(time) for time in (0, 1, 2, 4, 10, 13)] == [
        (0.3, 2), (0.3, 2), (0.5, 4), (0.8, 10), (0.3, 12), (0.5, 14),
    ]  # fmt: skip


@pytest.mark.parametrize("rows", ["a,0,0.4\n", "a,33,0.4\n", "a,0,0.4\na,5,0.4\n"])
def test_a_trace_that_never_changes_is_constant(tmp_path: Path, rows: str) -> None:
    assert timeline(TraceAvailability(written(tmp_path, rows))).at(1e9) == (0.4, inf)


def test_any_trace_is_what_a_list_of_its_rows_says(tmp_path: Path) -> None:
    """Rows of several devices, shuffled between each other, against a search by hand."""
    draw = random.Random(5)
    recorded = {}
    for device in range(7):
        times = sorted(draw.sample(range(1 - device % 2, 200), draw.randint(2, 30)))
        # Few levels, so that neighbours are often alike; the second one is never 0.
        recorded[device] = [(time, draw.choice((0, 0.5, 0.5, 1))) for time in times]
        recorded[device][1] = (times[1], 1)
    recorded[0][0] = (recorded[0][0][0], 0.5)
    rest, rows = {device: list(own) for device, own in recorded.items()}, []
    while rest:
        device = draw.choice(list(rest))
        time, share = rest[device].pop(0)
        rows.append(f"phone {device},{time},{share}")
        if not rest[device]:
            del rest[device]
    order = list(dict.fromkeys(row.split(",")[0] for row in rows))
    source = TraceAvailability(written(tmp_path, "\n".join(rows)))
    for index, name in enumerate(order):
        own = recorded[int(name.split()[1])]
        times, length = [time for time, _ in own], own[-1][0]
        if len(own) == 2 and times[0] == 0 and own[0][1] == 0:
            continue
        found = timeline(source, index)
        for tenths in range(5000):
            now = tenths / 10 + 0.05  # never at a change
            place = bisect_right(times, now % length) - 1  # -1 is the last one
            assert found.at(now)[0] == own[place][1], (name, now)


def test_devices_play_the_recorded_ones_in_the_order_of_the_file(tmp_path: Path) -> None:
    source = TraceAvailability(written(tmp_path, "b,0,0.2\na,0,0.4\nc,0,0.6\n"))
    assert [timeline(source, i).at(0)[0] for i in range(7)] == [0.2, 0.4, 0.6, 0.2, 0.4, 0.6, 0.2]


def test_seeded_devices_are_drawn_for_each_device(tmp_path: Path) -> None:
    source = TraceAvailability(written(tmp_path, "b,0,0.2\na,0,0.4\nc,0,0.6\n"), "seeded")
    drawn = [timeline(source, i, seed=1).at(0)[0] for i in range(300)]
    assert set(Counter(drawn)) == {0.2, 0.4, 0.6}
    assert min(Counter(drawn).values()) > 60
    assert [timeline(source, i, seed=2).at(0)[0] for i in range(300)] != drawn


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    first = TraceAvailability(written(tmp_path, "a,0,0.5\na,4,0.8\na,10,0.3\n"))
    same = TraceAvailability(written(tmp_path, "a,0.0,.50\n\na,4,0.8\na,10,0.3\n"))
    other = TraceAvailability(written(tmp_path, "a,0,0.5\na,4,0.9\na,10,0.3\n"))
    assert first.content_hash == same.content_hash != other.content_hash
    assert timeline(first).at(5)[0] == 0.8  # whatever became of the file


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ("", "at least one row, found none"),
        ("a,0\n", "line 2: expected 3 values, found 'a,0'"),
        ("a,0,1\na,1,0.5,7\n", "line 3: expected 3 values"),
        (",0,1\n", "line 2: expected the name of a device, found ''"),
        ("a,,1\n", "line 2: expected a time of 0 or more virtual seconds, found ''"),
        ("a,-1,1\n", "line 2: expected a time of 0 or more virtual seconds, found '-1'"),
        ("a,inf,1\n", "expected a time of 0 or more"),
        ("a,noon,1\n", "expected a time of 0 or more virtual seconds, found 'noon'"),
        ("a,0,\n", "line 2: expected an availability from 0 to 1, found ''"),
        ("a,0,nan\n", "expected an availability from 0 to 1, found 'nan'"),
        ("a,0,-0.1\n", "expected an availability from 0 to 1, found '-0.1'"),
        ("a,0,1.01\n", "expected an availability from 0 to 1, found '1.01'"),
        ("a,0,50%\n", "expected an availability from 0 to 1, found '50%'"),
        ("a,0,1\nb,9,1\na,4,1\nb,5,1\n", "line 5: expected a time after 9, the one before of "
         "device 'b', found '5'"),
        ("a,4,1\na,4,0\n", "line 3: expected a time after 4"),
        ("a,0,1\nb,0,0\nb,3,0\n", "found 0 throughout for device 'b'; leave the device out"),
        ("a,0,0\na,3,1\n", "found 0 throughout for device 'a'"),  # its last row has no length
        ("a,0,1\na,1e-9,0.5\n", "expected 0.001 virtual seconds or more up to the last row"),
        ('"a,0,1\n', "found: unexpected end of data"),
    ],
)  # fmt: skip
def test_bad_rows_are_refused_by_line(tmp_path: Path, rows: str, error: str) -> None:
    path = written(tmp_path, rows)
    with pytest.raises(InputError) as refused:
        TraceAvailability(path)
    message = str(refused.value)
    assert error in message
    assert message.startswith(path)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", "''"),
        ("device,time\n", "'device,time'"),
        ("device,time,availability,battery\n", "battery"),
        ("phone,time,availability\n", "phone"),
        ("a,0,1\n", "'a,0,1'"),
    ],
)
def test_other_columns_are_refused(tmp_path: Path, header: str, found: str) -> None:
    path = written(tmp_path, "", header)
    with pytest.raises(InputError, match="expected the columns device,time,availability") as bad:
        TraceAvailability(path)
    assert found in str(bad.value)


def test_files_that_hold_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a trace of free compute, found: Is a directory"):
        TraceAvailability(str(tmp_path))
    path = tmp_path / "trace.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="text in UTF-8"):
        TraceAvailability(str(path))


def test_what_a_spreadsheet_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(b'\xef\xbb\xbfdevice,time,availability\r\n"a, b",0,1\r\n\r\n')
    assert TraceAvailability(str(path)).mean_share() == 1


def test_traces_of_a_large_population_are_kept_compact(tmp_path: Path) -> None:
    rows = "".join(
        f"phone-{device},{60 * step},{(device + step) % 10 / 10}\n"
        for device in range(2000)
        for step in range(20)
    )
    source = TraceAvailability(written(tmp_path, rows))
    trace = source._trace
    assert trace.devices == 2000
    # Two numbers for a row and one for a device, whatever objects were read.
    stored = trace.starts.nbytes + trace.ends.nbytes + trace.shares.nbytes
    assert stored <= 16 * 40_000 + 8 * 2001
    one = source.timeline(Device(7, "weak", 1.0), 1, 0.0, 1.0, 0)
    assert one.ends.base is not None  # type: ignore[attr-defined]  # a view, not a copy
