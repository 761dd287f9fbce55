"""What is asked of a cluster is compared with what it has, before anything starts."""

import pytest

from igkd_hpo.engines.ray.request import Request, parse_memory
from igkd_hpo.errors import UsageError

GIB = 2.0**30


@pytest.mark.parametrize(
    ("request_", "nodes", "room"),
    [
        (Request(), [{"CPU": 4.0}, {"CPU": 2.0}, {}], 6),
        (Request(cpus=3), [{"CPU": 4.0}, {"CPU": 2.0}], 1),
        (Request(cpus=0.1), [{"CPU": 1.0}], 10),
        (Request(gpus=0.25), [{"CPU": 16.0, "GPU": 2.0}], 8),
        (Request(gpus=0.3), [{"CPU": 16.0, "GPU": 1.0}], 3),  # not 3.3
        (Request(gpus=0.6), [{"CPU": 16.0, "GPU": 3.0}], 3),  # not 5: a share is of one GPU
        (Request(cpus=0, gpus=1), [{"GPU": 2.0}], 2),
        (Request(memory=int(3 * GIB)), [{"CPU": 8.0, "memory": 10 * GIB}], 3),
    ],
)
def test_room_is_what_whole_workers_fit_into(request_: Request, nodes: list[dict[str, float]], room: int) -> None:
    assert request_.room(nodes) == room


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (Request(cpus=8), r"--cpus-per-worker 8: .* 2 nodes has 4;"),
        (Request(gpus=1), r"--gpus-per-worker 1: .* has 0;"),
        (Request(memory=int(9 * GIB)), r"--memory-per-worker 9.0 GiB: .* has 8.0 GiB;"),
        (Request(cpus=4, memory=int(8 * GIB)), "at once"),
    ],
)
def test_more_than_any_node_has_is_refused_with_what_it_has(request_: Request, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        request_.room([{"CPU": 4.0, "memory": GIB}, {"CPU": 1.0, "memory": 8 * GIB}])


@pytest.mark.parametrize("wrong", [{"gpus": 2}, {"gpus": -1}, {"cpus": float("nan")}, {"cpus": 0}, {"memory": -5}])
def test_what_is_no_share_of_a_node_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Request(**wrong)  # type: ignore[arg-type]


def test_threads_follow_the_cores() -> None:
    assert [Request(cpus=cpus, gpus=1).threads for cpus in (0, 0.5, 1, 2.7, 8)] == [1, 1, 1, 2, 8]


@pytest.mark.parametrize(
    ("text", "size"),
    [("3GiB", 3 * 2**30), ("1.5 gb", 1_500_000_000), ("500MB", 500_000_000), ("2000000000", 2 * 10**9)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "3 apples", "GiB", "3GiBB", "inf", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--memory-per-worker"):
        parse_memory(text)
