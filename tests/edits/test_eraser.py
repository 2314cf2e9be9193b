"""Edits are values: applied and taken back bit for bit, saved and loaded exactly, refused when broken."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from erasebench.concepts import Concept, ErasureTask
from erasebench.edits.change import PARTS
from erasebench.edits.eraser import Change, Edit, Eraser
from erasebench.errors import UserError
from erasebench.methods.closed_form.cure import Cure
from erasebench.methods.closed_form.mace import MaceCfr
from erasebench.methods.closed_form.rece import Rece
from erasebench.methods.closed_form.uce import Uce
from erasebench.methods.compose import Compose
from erasebench.methods.controls.none import Unedited
from erasebench.methods.controls.noop import NoOp
from erasebench.methods.controls.random_edit import RandomEdit
from erasebench.methods.guards.negative_prompt import NegativePrompt
from erasebench.models.targets import key_value_weights, named_weight

ERASERS = [
    Unedited(),
    NoOp(),
    Cure(),
    Cure(multi="sequential", token_rule="all"),
    Uce(),
    Uce(technique="tensor"),
    Uce(variant="2025"),
    Rece(),
    RandomEdit(Cure()),
]
IDS = [f"{eraser.name}{i}" for i, eraser in enumerate(ERASERS)]


def state(pipe):
    return {
        f"{part}.{name}": tensor.clone()
        for part in ("unet", "text_encoder", "vae")
        for name, tensor in getattr(pipe, part).state_dict().items()
    }


def assert_same_state(pipe, before):
    after = state(pipe)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def picture(pipe, prompt="a church"):
    generator = torch.Generator().manual_seed(3)
    return pipe(prompt, num_inference_steps=2, height=16, width=16, generator=generator, output_type="np").images


def assert_same_edit(a, b):
    assert list(a.changes) == list(b.changes)
    for name in a.changes:
        for part in PARTS:
            x, y = getattr(a.changes[name], part), getattr(b.changes[name], part)
            assert (x is None and y is None) or (x.dtype == y.dtype and torch.equal(x, y))


@pytest.mark.parametrize("eraser", ERASERS, ids=IDS)
def test_every_eraser_is_pure_and_repeatable(eraser, tiny_random_pipe, church_task):
    before = state(tiny_random_pipe)
    first, second = eraser.edit(tiny_random_pipe, church_task), eraser.edit(tiny_random_pipe, church_task)
    assert_same_state(tiny_random_pipe, before)
    assert_same_edit(first, second)
    assert eraser.key("r", church_task) == eraser.key("r", church_task)


@pytest.mark.parametrize("eraser", ERASERS, ids=IDS)
def test_every_edit_is_taken_back_bit_for_bit(eraser, tiny_random_pipe, church_task):
    before = state(tiny_random_pipe)
    edit = eraser.edit(tiny_random_pipe, church_task)
    with edit.applied(tiny_random_pipe):
        changed = [n for n, t in state(tiny_random_pipe).items() if not torch.equal(t, before[n])]
    assert_same_state(tiny_random_pipe, before)
    expected = [] if eraser.name in ("none", "noop") else list(key_value_weights(tiny_random_pipe))
    assert changed == expected


@pytest.mark.parametrize("eraser", ERASERS, ids=IDS)
def test_every_edit_survives_saving(eraser, tiny_random_pipe, church_task, tmp_path):
    edit = eraser.edit(tiny_random_pipe, church_task)
    path = edit.save(tmp_path / "deep" / "edit.safetensors")
    loaded = Edit.load(path)
    assert_same_edit(edit, loaded)
    assert loaded.info == edit.info
    assert sorted(p.name for p in path.parent.iterdir()) == ["edit.json", "edit.safetensors"]


@pytest.mark.parametrize("pipe_name", ["tiny_random_sd2_pipe", "tiny_random_sdxl_pipe"])
@pytest.mark.parametrize("eraser", ERASERS, ids=IDS)
def test_every_eraser_takes_every_family(eraser, pipe_name, request, artists_task):
    pipe = request.getfixturevalue(pipe_name)
    before = picture(pipe)
    with eraser.edit(pipe, artists_task).applied(pipe):
        during = picture(pipe)
    assert (picture(pipe) == before).all()
    assert (during == before).all() == (eraser.name in ("none", "noop"))


def test_weights_are_restored_after_an_exception(tiny_random_pipe, church_task):
    before = state(tiny_random_pipe)
    with (
        pytest.raises(KeyboardInterrupt),
        Uce().edit(tiny_random_pipe, church_task).applied(tiny_random_pipe),
    ):
        raise KeyboardInterrupt
    assert_same_state(tiny_random_pipe, before)


def test_applied_weights_are_weight_plus_change(tiny_random_pipe, church_task):
    edit = Cure().edit(tiny_random_pipe, church_task)
    originals = {name: weight.detach().double() for name, weight in key_value_weights(tiny_random_pipe).items()}
    with edit.applied(tiny_random_pipe):
        for name, weight in key_value_weights(tiny_random_pipe).items():
            assert torch.equal(weight, (originals[name] + edit.changes[name].of(originals[name])).float())


def test_edits_nest(tiny_random_pipe, church_task, artists_task):
    before = state(tiny_random_pipe)
    one, two = Cure().edit(tiny_random_pipe, church_task), Uce().edit(tiny_random_pipe, artists_task)
    with one.applied(tiny_random_pipe):
        middle = state(tiny_random_pipe)
        with two.applied(tiny_random_pipe):
            pass
        assert_same_state(tiny_random_pipe, middle)
    assert_same_state(tiny_random_pipe, before)


def test_info_says_what_was_done(tiny_random_pipe, church_task):
    info = Cure(alpha=3.0).edit(tiny_random_pipe, church_task).info
    weights = key_value_weights(tiny_random_pipe).values()
    assert (info["method"], info["version"], info["settings"]["alpha"]) == ("cure", "1", 3.0)
    assert info["task"]["label"] == "church" and info["task"]["key"] == church_task.key
    assert info["weights"] == len(weights) and info["seconds"] > 0
    touched = sum(weight.numel() for weight in weights)
    assert info["share"] == touched / sum(p.numel() for p in tiny_random_pipe.unet.parameters())


def test_keys_tell_edits_apart(church_task, artists_task):
    keys = [
        Cure().key("r", church_task),
        Cure().key("other", church_task),
        Cure().key("r", artists_task),
        Cure(alpha=2.0).key("r", church_task),
        Uce().key("r", church_task),
        Uce(variant="2025").key("r", church_task),
        RandomEdit(Cure()).key("r", church_task),
        RandomEdit(Cure(alpha=2.0)).key("r", church_task),
        Unedited().key("r", church_task),
    ]
    assert len(set(keys)) == len(keys)
    assert Unedited().key("r", church_task) == Unedited().key("other", artists_task) == ""


def test_what_decides_a_part_decides_what_it_is_part_of(church_task, tmp_path):
    """The content of a part's files counts, and the folder of its cache does not."""
    prompts = tmp_path / "prompts.txt"

    def keys(cache):
        part = MaceCfr(preserve=str(prompts), cache_dir=str(tmp_path / cache))
        return [
            eraser.key("r", church_task)
            for eraser in (part, Compose({"a": Uce(), "b": part}), RandomEdit(part), Compose({"a": RandomEdit(part)}))
        ]

    prompts.write_text("a dog\na cat\n")
    before = keys("here")
    assert len(set(before)) == 4
    assert keys("there") == before
    prompts.write_text("a dog\na horse\n")
    assert not set(keys("here")) & set(before)


def test_the_version_of_the_shared_algebra_is_in_every_key(church_task, monkeypatch):
    erasers = [Cure(), Rece(), RandomEdit(Cure()), Compose({"a": Uce()}), MaceCfr(), NoOp()]
    before = [eraser.key("r", church_task) for eraser in erasers]
    monkeypatch.setattr("erasebench.edits.eraser.ALGEBRA_VERSION", "next")
    assert not {eraser.key("r", church_task) for eraser in erasers} & set(before)
    assert Unedited().key("r", church_task) == ""


def test_settings_are_plain_values():
    assert Cure(templates=("a {}",), retain=["x"]).settings["templates"] == ["a {}"]
    assert RandomEdit(Cure(), seed=4).settings["like"]["name"] == "cure"


@pytest.mark.parametrize("eraser", [Unedited, NoOp, Cure, Uce, Rece])
def test_an_unknown_option_is_refused(eraser):
    with pytest.raises(TypeError, match="alhpa"):
        eraser(alhpa=2)


def test_an_eraser_that_returns_nan_is_stopped_and_the_layer_named(tiny_random_pipe, church_task):
    @dataclass(frozen=True)
    class Broken(Eraser):
        name: ClassVar[str] = "broken"

        def changes(self, pipe, task):
            weights = key_value_weights(pipe)
            made = {name: Change(delta=torch.zeros_like(weight)) for name, weight in weights.items()}
            list(made.values())[3].delta[0, 0] = float("nan")
            return made, {}

    layer = list(key_value_weights(tiny_random_pipe))[3]
    with pytest.raises(UserError, match=f"eraser broken.*{layer}"):
        Broken().edit(tiny_random_pipe, church_task)


def test_an_edit_too_large_for_the_weights_type_is_refused_before_anything_changes(small_pipe):
    pipe = small_pipe().to(torch.float16)
    name, weight = list(key_value_weights(pipe).items())[1]
    before = state(pipe)
    edit = Edit({name: Change(delta=torch.full(weight.shape, 1e6, dtype=torch.float64))}, {"method": "big"})
    with pytest.raises(UserError, match=f"eraser big: {name} is not finite"), edit.applied(pipe):
        pass
    assert_same_state(pipe, before)


def test_half_precision_weights_are_rounded_once_and_restored(small_pipe, church_task):
    pipe = small_pipe()
    pipe.unet.to(torch.bfloat16)
    before = state(pipe)
    edit = Cure().edit(pipe, church_task)
    with edit.applied(pipe):
        for name, weight in key_value_weights(pipe).items():
            assert torch.equal(weight, (before[name].double() + edit.changes[name].of(before[name])).bfloat16())
    assert_same_state(pipe, before)


def test_an_edit_of_another_model_is_refused(tiny_random_pipe, tiny_random_sd2_pipe, church_task):
    edit = Cure().edit(tiny_random_pipe, church_task)
    refusal = r"to_k.weight: the model's weight is \[8, 20\], the edit's \[any, 24\]"
    with pytest.raises(UserError, match=refusal), edit.applied(tiny_random_sd2_pipe):
        pass


def test_a_cut_off_or_foreign_file_is_refused(tiny_random_pipe, church_task, tmp_path):
    path = Uce().edit(tiny_random_pipe, church_task).save(tmp_path / "e.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged.*cannot be read.*give the command"):
        Edit.load(path)
    with pytest.raises(UserError, match="no such edit"):
        Edit.load(tmp_path / "none.safetensors")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="not an edit"):
        Edit.load(tmp_path / "other.safetensors")


def test_a_folder_that_cannot_be_written_is_refused(tiny_random_pipe, church_task, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be written"):
        Uce().edit(tiny_random_pipe, church_task).save(tmp_path / "file" / "e.safetensors")


def test_a_shared_factor_is_saved_once(tiny_random_pipe, tmp_path):
    from safetensors import safe_open

    edit = Cure().edit(tiny_random_pipe, ErasureTask((Concept("ab", "object"),)))
    with safe_open(edit.save(tmp_path / "e.safetensors"), "pt") as file:
        names = list(file.keys())
    assert sorted(name.rsplit(".", 1)[1] for name in names) == ["right", "token"]
    loaded = Edit.load(tmp_path / "e.safetensors")
    assert len({id(change) for change in loaded.changes.values()}) == 1


def test_a_change_is_dense_or_factored():
    left, right = torch.randn(4, 2), torch.randn(2, 3)
    change = Change(left=left, right=right)
    assert change.shape == (4, 3) and change.rank == 2
    dense = left.double() @ right.double()
    assert torch.equal(change.of(None), dense)
    assert change.norm(None) == pytest.approx(torch.linalg.norm(dense).item(), rel=1e-12)
    assert Change(delta=dense).norm(None) == pytest.approx(change.norm(None), rel=1e-12)
    for wrong in (
        {},
        {"left": left},
        {"delta": dense, "left": left, "right": right},
        {"left": left, "right": left},
    ):
        with pytest.raises(ValueError):
            Change(**wrong)


def test_noop_leaves_images_and_weights_as_they_are(tiny_random_pipe, church_task):
    before, weights = picture(tiny_random_pipe), state(tiny_random_pipe)
    edit = NoOp().edit(tiny_random_pipe, church_task)
    assert len(edit.changes) == len(key_value_weights(tiny_random_pipe))
    with edit.applied(tiny_random_pipe):
        assert_same_state(tiny_random_pipe, weights)
        assert (picture(tiny_random_pipe) == before).all()


def test_none_is_empty(tiny_random_pipe, church_task):
    edit = Unedited().edit(tiny_random_pipe, church_task)
    assert not edit.changes and edit.info["share"] == 0.0


@pytest.mark.parametrize("like", [Cure(), Uce(), Rece(), Uce(technique="tensor")], ids=str)
def test_random_has_the_norm_and_rank_of_its_reference_in_every_layer(like, tiny_random_pipe, church_task):
    reference = like.edit(tiny_random_pipe, church_task)
    random = RandomEdit(like, seed=5).edit(tiny_random_pipe, church_task)
    assert list(random.changes) == list(reference.changes)
    for name, change in reference.changes.items():
        other = random.changes[name]
        assert (other.right is None) == (change.right is None)
        assert change.right is None or other.rank == change.rank
        weight = named_weight(tiny_random_pipe, name)
        assert other.of(weight).norm().item() == pytest.approx(change.of(weight).norm().item(), rel=1e-10)
        assert not torch.allclose(other.of(weight), change.of(weight))
    again = RandomEdit(like, seed=6).edit(tiny_random_pipe, church_task)
    first, second = (next(iter(edit.changes.values())) for edit in (again, random))
    assert not torch.equal(first.of(None), second.of(None))


def test_random_needs_an_eraser_that_changes_something(tiny_random_pipe, church_task):
    with pytest.raises(UserError, match="changes nothing"):
        RandomEdit(Unedited()).edit(tiny_random_pipe, church_task)
    with pytest.raises(UserError, match="not an eraser"):
        RandomEdit("cure")
    with pytest.raises(UserError, match="seed"):
        RandomEdit(Cure(), seed=-1)


def test_an_eraser_of_one_line_of_algebra(tiny_random_pipe):
    """The contract that a plugin author reads: changes by name, notes, and nothing else."""

    @dataclass(frozen=True)
    class Shrink(Eraser):
        name: ClassVar[str] = "shrink"
        factor: float = 0.5

        def changes(self, pipe, task):
            return {n: Change(delta=(self.factor - 1) * w.double()) for n, w in key_value_weights(pipe).items()}, {}

    task = ErasureTask((Concept("x", "object"),))
    name, weight = next(iter(key_value_weights(tiny_random_pipe).items()))
    before = weight.detach().clone()
    with Shrink().edit(tiny_random_pipe, task).applied(tiny_random_pipe):
        assert torch.equal(weight, before * 0.5)


def test_a_digest_knows_what_an_edit_does_and_not_what_is_noted_of_it(tiny_random_pipe, church_task, tmp_path):
    edit = Cure().edit(tiny_random_pipe, church_task)
    assert len(edit.digest()) == 32 and edit.digest() == Edit.load(edit.save(tmp_path / "e.safetensors")).digest()
    assert replace(edit, info={}, key="k").digest() == edit.digest()
    name, change = next(iter(edit.changes.items()))
    part = next(part for part in PARTS if getattr(change, part) is not None)
    tensor = getattr(change, part)
    other = replace(change, **{part: tensor.nextafter(tensor + 1)})
    assert replace(edit, changes={**edit.changes, name: other}).digest() != edit.digest()
    one, two = (
        NegativePrompt(text=text).edit(tiny_random_pipe, church_task).digest() for text in ("a church", "a chapel")
    )
    assert one != two


def test_an_eraser_whose_edit_has_a_hook_must_say_so(tiny_random_pipe, church_task):
    class Silent(NegativePrompt):
        name = "silent"

        def acts(self):
            return ()

    with pytest.raises(UserError, match=r"eraser silent: its edit has a hook negative_prompt, which its acts"):
        Silent().edit(tiny_random_pipe, church_task)
