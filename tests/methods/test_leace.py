"""LEACE equals a slow literal transcription, leaves nothing that is linear to read, and says what it could not do."""

from __future__ import annotations

import pytest
import torch
from concept_erasure import LeaceEraser
from hypothesis import given, settings
from hypothesis import strategies as st
from literal import leace_removal
from text_helpers import pick

from erasebench.concepts import Concept, ErasureTask
from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.methods.closed_form.leace import Leace, fit, one_column_each, shrinkage_weight
from erasebench.models.load import load_model
from erasebench.models.targets import key_value_weights
from erasebench.models.text import TOKEN_RULES
from erasebench.runs.tasks import task_groups

seeds = st.integers(0, 10_000)
methods = st.sampled_from(["leace", "orth"])


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def norm(matrix):
    return torch.linalg.norm(matrix).item()


def sample(seed, width=6, concepts=2, each=5, controls=12):
    """Correlated rows with a large common part, and their labels."""
    labels = one_column_each([each] * concepts, controls)
    rows = draw(seed, len(labels), width) @ draw(seed + 1, width, width) + 10 * draw(seed + 2, width)
    return rows + labels @ draw(seed + 3, concepts, width), labels


def covariance(rows, labels):
    return (rows - rows.mean(dim=0)).T @ (labels - labels.mean(dim=0)) / (len(rows) - 1)


TASK = ErasureTask(
    (Concept("church", "object", ("church", "small chapel")), Concept("tench", "object")),
    ("gas pump", "golf ball", "", "cassette player", "horn"),
)
SENTENCES = ["a {}.", "my {}", "{} by the sea", "on {} 3"]


def expected_removal(pipe, rule, **options):
    """E of the task with its four templates, by the literal transcription."""

    def prompts(text):
        return [text, *(template.replace("{}", text) for template in SENTENCES)]

    groups = [
        [*prompts("church"), *prompts("small chapel")],
        prompts("tench"),
        [text for name in TASK.retain if name for text in prompts(name)],
    ]
    rows = [torch.cat([pick(pipe, text, rule) for text in group]) for group in groups]
    labels = torch.zeros(sum(len(group) for group in rows), 2, dtype=torch.float64)
    labels[: len(rows[0]), 0] = 1
    labels[len(rows[0]) : len(rows[0]) + len(rows[1]), 1] = 1
    return leace_removal(torch.cat(rows), labels, **options)


@pytest.mark.parametrize("rule", TOKEN_RULES)
def test_it_equals_the_literal_transcription(rule, exact_pipe):
    removal = expected_removal(exact_pipe, rule, shrinkage=True)
    edit = Leace(token_rule=rule, templates=SENTENCES).edit(exact_pipe, TASK)
    for name, weight in key_value_weights(exact_pipe).items():
        literal = -(weight.detach().double() @ removal)
        assert norm(edit.changes[name].of(weight) - literal) <= 1e-8 * norm(literal), name
    assert len({id(change) for change in edit.changes.values()}) == 1


@pytest.mark.parametrize("method", ["leace", "orth"])
@pytest.mark.parametrize("shrinkage", [True, False])
@pytest.mark.parametrize("shape", [(24, 2, 30, 60), (24, 1, 4, 9), (10, 3, 4, 6)])
def test_fit_equals_the_literal_transcription_with_many_rows_and_with_few(shape, shrinkage, method):
    width, concepts, each, controls = shape
    rows, labels = sample(7, width, concepts, each, controls)
    left, right, _ = fit(rows, labels, method, shrinkage, 0.01)
    literal = leace_removal(rows, labels, shrinkage=shrinkage, method=method)
    assert norm(left @ right - literal) <= 1e-8 * norm(literal)


@pytest.mark.parametrize("method", ["leace", "orth"])
@pytest.mark.parametrize("shrinkage", [True, False])
def test_it_equals_the_published_package(shrinkage, method):
    rows, labels = sample(11, 24, 3, 20, 60)
    left, right, _ = fit(rows, labels, method, shrinkage, 0.01)
    for constrained in (True, False):  # the constraint never acts
        eraser = LeaceEraser.fit(rows, labels, method=method, shrinkage=shrinkage, constrain_cov_trace=constrained)
        published = eraser.proj_left @ eraser.proj_right
        assert norm(left @ right - published) <= 1e-9 * norm(published)


@settings(max_examples=30, deadline=None)
@given(seeds, methods, st.booleans(), st.integers(1, 3), st.integers(3, 30))
def test_nothing_linear_is_left(seed, method, shrinkage, concepts, width):
    rows, labels = sample(seed, width, concepts)
    left, right, facts = fit(rows, labels, method, shrinkage, 1e-9)
    edited = rows - rows @ (left @ right).T
    assert norm(covariance(edited, labels)) <= 1e-7 * norm(covariance(rows, labels))
    centre = edited[labels.sum(dim=1) == 0].mean(dim=0)
    for column in labels.T:
        assert norm(edited[column == 1].mean(dim=0) - centre) <= 1e-7 * norm(rows)
    assert facts["columns"] == right.shape[0] <= concepts


@settings(max_examples=30, deadline=None)
@given(seeds, methods, st.booleans(), st.integers(3, 30))
def test_it_is_an_idempotent_projection_that_never_raises_the_variance(seed, method, shrinkage, width):
    rows, labels = sample(seed, width)
    left, right, _ = fit(rows, labels, method, shrinkage, 0.01)
    assert norm(right @ left - torch.eye(len(right), dtype=torch.float64)) <= 1e-8
    removal = left @ right
    assert norm(removal @ removal - removal) <= 1e-8 * norm(removal)
    if method == "orth":
        assert norm(removal - removal.T) <= 1e-10
    if method == "orth" or not shrinkage:  # with shrinkage it holds for the estimate, not for the sample
        spread = (rows - rows.mean(dim=0)).square().sum()
        edited = rows - rows @ removal.T
        assert (edited - edited.mean(dim=0)).square().sum() <= spread * (1 + 1e-9)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_no_projection_with_the_same_guarantee_moves_the_rows_less(seed):
    rows, labels = sample(seed, 6, 2, 10, 20)
    centred = rows - rows.mean(dim=0)

    def cost(method):
        left, right, _ = fit(rows, labels, method, False, 1e-9)
        return (centred @ (left @ right).T).square().sum()

    assert cost("leace") <= cost("orth") * (1 + 1e-9)


@settings(max_examples=20, deadline=None)
@given(seeds, methods, st.booleans())
def test_a_direction_orthogonal_to_all_else_is_removed_exactly(seed, method, shrinkage):
    rows, labels = draw(seed, 40, 8), one_column_each([20], 20)
    rows[:, 0] = labels[:, 0] * 5  # only the first coordinate tells the classes apart
    rows[20:, 1:] = rows[:20, 1:]
    left, right, _ = fit(rows, labels, method, shrinkage, 0.01)
    first = torch.eye(8, dtype=torch.float64)[:1]
    assert norm(left @ right - first.T @ first) <= 1e-9


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(2, 60))
def test_shrinkage_is_between_none_and_all(seed, count):
    centred = draw(seed, count, 12)
    values = torch.linalg.eigvalsh(centred.T @ centred / count).clamp_min(0)
    assert 0 <= shrinkage_weight(values, count, 12) <= 1


def test_more_rows_shrink_less():
    spectrum = torch.linspace(0.1, 3, 12, dtype=torch.float64)
    weights = [shrinkage_weight(spectrum, count, 12) for count in (50, 500, 5000)]
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] < 0.01


def test_equal_rows_are_refused():
    with pytest.raises(UserError, match="equal tokens"):
        fit(torch.ones(6, 4, dtype=torch.float64), one_column_each([3], 3), "leace", True, 0.01)


def test_the_notes_say_how_far_the_means_move_and_that_they_meet(exact_pipe):
    info = Leace(token_rule="last_content").edit(exact_pipe, TASK).info
    assert info["columns"] == info["rank"] == 2
    assert info["shift"] > 0
    assert set(info["distance_to_controls"]) == {"church", "tench"}
    for distance in info["distance_to_controls"].values():
        assert distance["after"] < 1e-8 < distance["before"]
    assert info["controls"] == ["gas pump", "golf ball", "cassette player", "horn"]
    assert info["tokens"] == {"concept": 18, "control": 24}


def test_few_rows_without_shrinkage_are_warned_of(exact_pipe):
    few = Leace(token_rule="last_content", shrinkage=False)
    assert any("42 rows for a covariance of 24 x 24" in text for text in few.edit(exact_pipe, TASK).info["warnings"])
    many = Leace(token_rule="last_content", shrinkage=False, templates=[*SENTENCES, "{}", "no {}", "old {}"])
    assert not any("covariance" in text for text in many.edit(exact_pipe, TASK).info.get("warnings", []))


def test_directions_under_the_tolerance_are_warned_of(exact_pipe):
    edit = Leace(token_rule="last_content", svd_tol=10.0).edit(exact_pipe, TASK)
    assert any("0 of 2 directions" in text for text in edit.info["warnings"])
    for name, weight in key_value_weights(exact_pipe).items():
        assert norm(edit.changes[name].of(weight)) == 0


def test_no_controls_are_refused_with_a_cure(exact_pipe):
    with pytest.raises(UserError, match=r"task\.retain=others"):
        Leace().edit(exact_pipe, ErasureTask(TASK.targets, ("",)))


def test_a_control_that_is_a_phrase_of_the_concept_is_refused(exact_pipe):
    with pytest.raises(UserError, match="'Small Chapel' is to be erased and is a control"):
        Leace(controls=["horn", "Small Chapel"]).edit(exact_pipe, TASK)


def test_controls_from_a_file_are_kept_as_names(tmp_path, exact_pipe):
    path = tmp_path / "names.csv"
    path.write_text('id,concept\n1,gas pump\n2,"horn, french"\n3, gas pump \n', encoding="utf-8")
    from_file = Leace(controls=str(path))
    assert from_file.controls == ("gas pump", "horn, french")
    assert from_file.settings["controls"] == ["gas pump", "horn, french"]
    assert from_file.edit(exact_pipe, TASK).info["controls"] == ["gas pump", "horn, french"]


def test_a_file_without_names_is_refused(tmp_path):
    path = tmp_path / "names.csv"
    path.write_text("id,label\n1,horn\n")
    with pytest.raises(UserError, match=r"names.csv: no column of names \(concept, name, artist, noun\)"):
        Leace(controls=str(path))
    with pytest.raises(UserError, match="method.controls=.*none.csv: no such file"):
        Leace(controls=str(tmp_path / "none.csv"))
    with pytest.raises(UserError, match=r"controls=tsk: .*Did you mean 'task'\?"):
        Leace(controls="tsk")


@pytest.mark.parametrize(
    "options",
    [{"method": "lda"}, {"svd_tol": 0.0}, {"token_rule": "first"}, {"templates": ["no place"]}, {"controls": "tsk"}],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(UserError):
        Leace(**options)


@pytest.mark.parametrize("kind", ["object", "artist", "celebrity", "unsafe"])
def test_every_kind_is_edited_on_the_embedded_model(kind):
    pipe = load_model("embedded").pipe
    task = task_groups(compose([f"task={kind}"]))[kind].tasks[0]
    edit = Leace().edit(pipe, task)
    assert edit.info["rank"] == len(task.targets)
    assert edit.info["moved"]["target"] > 0.05
    assert "warnings" not in edit.info
    assert all(distance["after"] < 1e-6 * distance["before"] for distance in edit.info["distance_to_controls"].values())
