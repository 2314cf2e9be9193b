"""Every reader meets inputs that nobody should give it: each is refused in a sentence or read, none ends in a traceback.

What is read although it was changed must be what was written, where a file says what that is: pixels, tensors, scores.
"""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fuzz_helpers import TEXTS, VALUES, changed_bytes, changed_tree, deep, outcomes
from omegaconf import OmegaConf
from store_helpers import filled, picture, recipe
from table_helpers import POINTS, finish, make_plan, quiet, table, tabulate

from erasebench.commands.show import show
from erasebench.config.compose import compose
from erasebench.config.protocol import Protocol
from erasebench.edits.edit import Edit
from erasebench.edits.eraser import Change
from erasebench.errors import UserError
from erasebench.models.load import load_model
from erasebench.models.marks import read_marks
from erasebench.prompts.reader import load_prompts
from erasebench.runs.tasks import task_groups
from erasebench.store import Store, read_png
from erasebench.tables.objective import objective_value

Feed = Callable[[Path, random.Random], None]

# Prompts

COLUMNS = {
    "prompt": ("a photo of a church", "tench, swimming", 'a "gas pump"', "nude woman"),
    "evaluation_seed": ("1", "4290749014", "77"),
    "case_number": ("0", "1", "2"),
    "evaluation_guidance": ("7.5", "3"),
    "categories": ("sexual", "violence, self-harm"),
    "label": ("church", "tench", ""),
    "role": ("erase", "retain", "general"),
    "type": ("0", "1", "erased"),
    "width": ("512", "64"),
    "artist": ("Van Gogh", "Monet"),
}


def prompt_table(rng: random.Random) -> pd.DataFrame:
    names = ["prompt", *rng.sample(list(COLUMNS)[1:], rng.randint(0, 5))]
    rows = [[rng.choice(COLUMNS[name]) for name in names] for _ in range(rng.randint(1, 6))]
    for row in rows:
        if rng.random() < 0.3:
            row[rng.randrange(len(row))] = rng.choice(TEXTS)
    if rng.random() < 0.2:
        names[rng.randrange(len(names))] = rng.choice((*TEXTS, "prompt"))
    return pd.DataFrame(rows, columns=names)


def prompt_options(rng: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {
        "schema": ("auto", "i2p", "x"), "kind": (None, "object", "unsafe"), "limit": (None, 1), "role": (None, "file", "erase"),
        "label": (None, "church"), "where": (None, {"categories": "sexual"}, {"width": ">100"}, {"x": 1}),
    }  # fmt: skip
    chosen = {name: rng.choice(values) for name, values in options.items() if rng.random() < 0.3}
    if rng.random() < 0.1:
        chosen[rng.choice(list(options))] = rng.choice(VALUES)
    return chosen


def prompts(ending: str) -> Feed:
    def feed(folder: Path, rng: random.Random) -> None:
        table, path = prompt_table(rng), folder / f"prompts{ending}"
        if ending == ".parquet":
            buffer = io.BytesIO()
            if rng.random() < 0.5:  # cells of any type
                name = rng.choice(list(table.columns)) if table.columns.is_unique else "prompt"
                odd = rng.choice(([1.5], [None], [[1]], [{"a": 1}], [b"\xff"], [pd.Timestamp.max], [True], [np.nan]))
                table = table.loc[:, ~table.columns.duplicated()].assign(**{str(name): odd * len(table)})
            table.loc[:, ~table.columns.duplicated()].to_parquet(buffer)
            data = buffer.getvalue()
        elif ending == ".jsonl":
            lines = [json.dumps(row) for row in table.loc[:, ~table.columns.duplicated()].to_dict("records")]
            if rng.random() < 0.3:
                lines[0] = rng.choice((json.dumps(changed_tree(json.loads(lines[0]), rng)), deep(rng)))
            data = "\n".join(lines).encode("utf-8", "surrogatepass")
        elif ending == ".txt":
            data = "\n".join(table.iloc[:, 0]).encode()
        else:
            data = table.to_csv(index=False, sep="\t" if ending == ".tsv" else rng.choice(",,,;")).encode()
        if rng.random() < 0.6:
            data = changed_bytes(data, rng)
        if rng.random() < 0.05:
            data = b"\xef\xbb\xbf" + data
        path.write_bytes(data)
        load_prompts(path, **prompt_options(rng))

    return feed


# What a store keeps

KEY = "e" * 32
WEIGHT = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def an_edit() -> Edit:
    change = Change(left=torch.arange(6.0).reshape(3, 2), right=torch.ones(2, 4))
    return Edit(
        {WEIGHT: change, WEIGHT.replace("to_k", "to_v"): change}, {"method": "uce", "version": "1", "seconds": 1.0}
    )


def edit_file(folder: Path, rng: random.Random) -> None:
    store = Store(folder / "edits")
    path = store.edit_path(KEY)
    if not (folder / "edit.bytes").exists():
        store.put_edit(KEY, an_edit())
        (folder / "edit.bytes").write_bytes(path.read_bytes())
    data = (folder / "edit.bytes").read_bytes()
    if rng.random() < 0.2:  # whole, with notes of other types than ours
        info = changed_tree({"method": "uce", "seconds": 1.0, "settings": {"a": 1}, "task": {"erase": ["x"]}}, rng)
        path.unlink(missing_ok=True)
        Edit(an_edit().changes, info if isinstance(info, dict) else {"info": info}).save(path)
        show(store, KEY)
        return
    if rng.random() < 0.4:  # the header, as JSON
        size = int.from_bytes(data[:8], "little")
        header = changed_tree(json.loads(data[8 : 8 + size]), rng)
        if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict) and rng.random() < 0.5:
            name = rng.choice(list(header["__metadata__"]) or ["info"])
            try:
                inner = json.loads(str(header["__metadata__"].get(name)))
                header["__metadata__"][name] = json.dumps(changed_tree(inner, rng) if rng.random() < 0.95 else inner)
            except (ValueError, TypeError):
                header["__metadata__"][name] = rng.choice((deep(rng), rng.choice(TEXTS)))
        text = json.dumps(header).encode()
        data = len(text).to_bytes(8, "little") + text + data[8 + size :]
    else:
        data = changed_bytes(data, rng)
    path.write_bytes(data)
    edit = store.get_edit(KEY)
    if edit is not None:
        for name, change in edit.changes.items():
            mine = an_edit().changes[name]
            assert torch.equal(change.left @ change.right, mine.left @ mine.right), "other tensors under the same key"
        show(store, KEY)
    Edit.load(path)


def shard(folder: Path, rng: random.Random) -> None:
    store = Store(folder / f"shards{rng.randrange(10**9)}")
    scores = pd.DataFrame({"key": [KEY, "f" * 32], "prompt": ["x", "y"], "value": [1.0, 2.0], "found": [[1], []]})
    store.put_scores("judge@1", scores)
    (path,) = (store.root / "records/judge@1").glob("*.parquet")
    path.write_bytes(changed_bytes(path.read_bytes(), rng))
    checked = rng.random() < 0.5
    if not checked:
        path.rename(path.with_name("renamed.parquet"))
    read = store.scores("judge@1", ["prompt"])
    assert not checked or not len(read) or read[["key", "value"]].equals(scores[["key", "value"]])
    store.missing_scores("judge@1", ["prompt"], scores[["key", "prompt"]])
    shutil.rmtree(store.root)


def image(folder: Path, rng: random.Random) -> None:
    store = Store(folder / "pngs")
    path = store.image_path(recipe().key)
    if not (folder / "png.bytes").exists():
        filled(store, 1)
        (folder / "png.bytes").write_bytes(path.read_bytes())
    path.write_bytes(changed_bytes((folder / "png.bytes").read_bytes(), rng))
    records = store.image_records()
    assert not len(records) or records["prompt"][0] == recipe().prompt
    read, its_recipe, _ = read_png(path)
    assert np.array_equal(read, picture()) and its_recipe == recipe()
    show(store, str(path))


# Nodes of a config


@cache
def base() -> Any:
    return OmegaConf.to_container(compose(["task=object", "method=uce"]), resolve=True)


def protocol_node(folder: Path, rng: random.Random) -> None:
    node = changed_tree(base()["protocol"], rng)
    Protocol.from_config(node if isinstance(node, dict) else {"protocol": node}).check()


def task_node(folder: Path, rng: random.Random) -> None:
    config = OmegaConf.create({"task": changed_tree(base()["task"], rng), "prompts": base()["prompts"]})
    task_groups(config)


OVERRIDDEN = (
    "task.erase", "task.retain", "task.concepts", "task.anchor", "task.phrases", "prompts.label", "prompts.where",
    "prompts.schema", "prompts.kind", "prompts.limit", "protocol.steps", "protocol.guidance", "protocol.size", "protocol.seeds",
    "protocol.scheduler", "protocol.scheduler_config", "protocol.negative_prompt", "protocol", "task", "method", "method.alpha",
    "metric", "model", "model.path", "name", "batch_size", "device", "dtype", "store.dir", "plugins", "experiment", "scale",
)  # fmt: skip


def overrides(folder: Path, rng: random.Random) -> None:
    value = rng.choice((*TEXTS, *(json.dumps(value) for value in VALUES)))[:300]
    text = f"{rng.choice(('', '', '', '+', '++', '~'))}{rng.choice(OVERRIDDEN)}={value}"
    task_groups(compose(["task=object", text]))


MEASURED = table(POINTS).query("eraser in ['none', 'cure alpha=1']")
TERMS = (
    "judge.erased",
    "judge.retained",
    "retained",
    "erased",
    "1",
    "2.5",
    "1e999",
    "0",
    "x",
    "judge",
    "__import__('os')",
    "()",
)


def objective(folder: Path, rng: random.Random) -> None:
    odd = (" ** ", " // ", " < ", " and ", ", ", ".", "(", ")", " if ", "[", "]", ":=", "\x00", "")
    text = rng.choice(TERMS)
    for _ in range(rng.randint(0, 6)):
        text += rng.choice((" + ", " - ", " * ", " / ") if rng.random() < 0.85 else odd) + rng.choice(TERMS)
    if rng.random() < 0.05:
        text = rng.choice(("(" * 5000 + "1" + ")" * 5000, "-" * 5000 + "1", "9**9**9**9", "1" * 5000, *TEXTS))
    objective_value(text, MEASURED)


# Models


def mark(folder: Path, rng: random.Random) -> None:
    value = {
        "format": "erasebench mark 1",
        "base": {"name": "x"},
        "how": "sum",
        "edits": [{"method": "uce"}],
        "file": {},
    }
    text = deep(rng) if rng.random() < 0.02 else json.dumps(changed_tree(value, rng))
    data = text.encode("utf-8", "surrogatepass")
    (folder / "erasebench.json").write_bytes(changed_bytes(data, rng) if rng.random() < 0.5 else data)
    read_marks(folder)


def model_index(model: Path) -> Feed:
    def feed(folder: Path, rng: random.Random) -> None:
        place = folder / "model"
        if not place.exists():
            shutil.copytree(model, place)
        names = sorted(
            path.relative_to(model)
            for path in model.rglob("*.json")
            if path.name in ("model_index.json", "config.json")
        )
        name = rng.choice(("model_index.json", rng.choice(names)))
        before = (model / name).read_bytes()
        if rng.random() < 0.5:
            data = changed_bytes(before, rng)
        else:
            data = (deep(rng) if rng.random() < 0.02 else json.dumps(changed_tree(json.loads(before), rng))).encode()
        try:
            (place / name).write_bytes(data)
            load_model(str(place), device="cpu")
        finally:
            (place / name).write_bytes(before)

    return feed


# Stored runs


def stored_run(folder: Path, rng: random.Random) -> None:
    store = Store(folder / "store")
    run = store.root / "runs" / "a-run"
    if not run.exists():
        finish(store, "a-run", make_plan(("none", "uce"), ("church",), 2))
        finish(store, "b-run", make_plan(("none", "uce"), ("church",), 2))
        shutil.copytree(run, folder / "before")
    name = rng.choice(sorted(path.name for path in (folder / "before").iterdir() if path.is_file()))
    before = (folder / "before" / name).read_bytes()
    data = before
    if name.endswith((".json", ".yaml")) and rng.random() < 0.7:
        tree = (
            json.loads(before) if name.endswith(".json") else OmegaConf.to_container(OmegaConf.create(before.decode()))
        )
        data = (deep(rng) if rng.random() < 0.02 else json.dumps(changed_tree(tree, rng))).encode(
            "utf-8", "surrogatepass"
        )
    else:
        data = changed_bytes(before, rng)
    try:
        (run / name).write_bytes(data)
        for read in (
            lambda: show(store, "a-run"),
            lambda: tabulate(["a-run"], str(store.root), str(folder / "out"), quiet()),
        ):
            try:
                read()
            except UserError:
                refused = True
            else:
                refused = False
        try:
            tabulate(["b-run"], str(store.root), str(folder / "out"), quiet())
        except UserError as error:
            raise AssertionError("a run is refused for another's fault") from error
    finally:
        (run / name).write_bytes(before)
    if refused:
        raise UserError("one of them")


READERS: dict[str, tuple[Feed | None, int]] = {
    "prompts.csv": (prompts(".csv"), 4000),
    "prompts.tsv": (prompts(".tsv"), 800),
    "prompts.txt": (prompts(".txt"), 800),
    "prompts.jsonl": (prompts(".jsonl"), 1200),
    "prompts.parquet": (prompts(".parquet"), 1500),
    "edit": (edit_file, 2500),
    "shard": (shard, 1500),
    "image": (image, 1500),
    "protocol": (protocol_node, 1500),
    "task": (task_node, 1500),
    "overrides": (overrides, 400),
    "objective": (objective, 1500),
    "mark": (mark, 1000),
    "model index": (None, 600),
    "stored run": (stored_run, 400),
}
"""By name: what is fed, and how many inputs the long check has; 20 700 in all."""

QUICK = {"overrides": 15, "model index": 15, "stored run": 0}
"""How many the quick check has, where it is not 40."""


def check(name: str, seeds: range, folder: Path, small_model: Path) -> None:
    feed = READERS[name][0] or model_index(small_model)
    counted = outcomes(feed, folder, seeds)
    print(name, dict(counted))
    assert set(counted) <= {"read", "refused"}, "\n".join(f"{n} x {what}" for what, n in counted.most_common())


@pytest.mark.parametrize("name", READERS)
def test_no_input_ends_in_a_traceback(name: str, tmp_path: Path, small_model: Path) -> None:
    check(name, range(QUICK.get(name, 40)), tmp_path, small_model)


@pytest.mark.faults
@pytest.mark.parametrize("name", READERS)
def test_none_of_many_inputs_ends_in_a_traceback(name: str, tmp_path: Path, small_model: Path) -> None:
    check(name, range(10_000, 10_000 + READERS[name][1]), tmp_path, small_model)
