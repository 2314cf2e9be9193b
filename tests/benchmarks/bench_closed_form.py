"""The suite that ``closed_form.py`` runs by pytest-benchmark: every case in every way, and the floors."""

from __future__ import annotations

import pytest
import torch

from benchmarks import IDS


@pytest.fixture
def session(request):
    """The session that the command started."""
    return request.config.pluginmanager.get_plugin("benchmark session").session


@pytest.mark.parametrize("floor", ["read and write", "rank 20", "dense", "cholesky", "one text"])
def test_floor(benchmark, session, floor):
    weights = list(session.weights.values())
    width = weights[0].shape[1]
    maker = torch.Generator().manual_seed(0)

    def numbers(*shape, dtype=weights[0].dtype):
        return torch.randn(*shape, generator=maker, dtype=dtype) / width

    def each(change):
        return lambda: [change(weight) for weight in weights]

    token, right, dense = numbers(width, 20), numbers(20, width), numbers(width, width)
    system = 50 * numbers(width, width, dtype=torch.float64)
    system = system @ system.T + torch.eye(width, dtype=torch.float64)
    ids = session.pipe.tokenizer([""], padding="max_length", max_length=77, return_tensors="pt").input_ids
    jobs = {
        "read and write": each(lambda weight: weight.mul_(0.5)),
        "rank 20": each(lambda weight: weight.addmm_(weight @ token, right)),
        "dense": each(lambda weight: weight.copy_(weight @ dense)),
        "cholesky": lambda: torch.cholesky_solve(system, torch.linalg.cholesky(system)),
        "one text": lambda: session.pipe.text_encoder(ids),
    }
    with torch.no_grad():
        session.floor(benchmark, floor, jobs[floor])


@pytest.mark.parametrize("way", ["ours", "plain", "released"])  # the upper one changes fastest
@pytest.mark.parametrize("case", IDS)
def test_job(benchmark, session, case, way):
    job = session.cases.get(case)
    if job is None:
        pytest.skip("not asked for")
    if way != "ours" and not session.plain:
        pytest.skip("ours only")
    if way == "released" and job.released is None:
        pytest.skip("the plain way is in the order of the released code")
    session.run(benchmark, job, way)
