"""UnlearnCanvas's UA, IRA and CRA: from classifiers of random weights, and against its own way of counting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from metric_helpers import pictures, plan_rows
from PIL import Image

from erasebench.config.compose import compose
from erasebench.errors import UserError
from erasebench.metrics.unlearncanvas import CANVAS_OBJECTS, CANVAS_STYLES, UnlearnCanvas, pixels
from erasebench.tables.measure import measure

timm = pytest.importorskip("timm")
SMALL = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Both classifiers in small, with random weights."""
    from safetensors.torch import save_file

    folder, paths = tmp_path_factory.mktemp("classifiers"), {}
    for domain, names in (("style", CANVAS_STYLES), ("object", CANVAS_OBJECTS)):
        torch.manual_seed(len(names))
        paths[domain] = str(folder / f"{domain}.safetensors")
        save_file(timm.create_model(SMALL, pretrained=False, num_classes=len(names)).state_dict(), paths[domain])
    return paths


def test_answers_are_those_of_the_networks(files: dict[str, str]) -> None:
    from safetensors.torch import load_file

    images = pictures(3)
    rows = plan_rows(["Van Gogh"] * 3, kind="artist", prompts=["A Dogs image in Van Gogh style."] * 3)
    found = UnlearnCanvas(**files, network=SMALL, device="cpu").score(images, rows)
    for domain, names in (("style", CANVAS_STYLES), ("object", CANVAS_OBJECTS)):
        network = timm.create_model(SMALL, pretrained=False, num_classes=len(names)).eval()
        network.load_state_dict(load_file(files[domain]))
        with torch.inference_mode():
            best = network(pixels(images)).argmax(dim=1).tolist()
        assert found[domain].tolist() == [names[place] for place in best]
    assert (found["style_asked"] == "Van Gogh").all() and (found["object_asked"] == "Dogs").all()


def test_pixels_are_squeezed_and_scaled_to_one() -> None:
    wide = Image.fromarray(np.full((10, 40, 3), 255, dtype=np.uint8))
    assert pixels([wide]).shape == (1, 3, 224, 224) and pixels([wide]).min() == 1
    assert pixels([Image.new("RGB", (5, 5))]).max() == -1


def released(rows: pd.DataFrame, erased: str) -> tuple[float, float, float]:
    """UA, IRA and CRA of a model without a style, as the tables are made from accuracy.py's two results."""
    style = {name: [] for name in rows.style_asked.unique()}
    for asked, seen in zip(rows.style_asked, rows["style"], strict=True):
        style[asked].append(asked == seen)
    accuracy = {name: float(np.mean(hits)) for name, hits in style.items()}
    things = [
        np.mean([a == b for a, b in zip(part["object"], part["object_asked"], strict=True)])
        for _, part in rows.assign(of=rows["object_asked"]).groupby("of")
    ]
    return (
        1 - accuracy[erased],
        float(np.mean([a for name, a in accuracy.items() if name != erased])),
        float(np.mean(things)),
    )


def test_the_three_numbers_are_the_releases() -> None:
    """Four styles x three objects x two seeds of a model without Van Gogh, with made-up answers."""
    rng, styles, objects = (
        np.random.default_rng(0),
        ("Van Gogh", "Monet", "Seed Images", "Winter"),
        ("Dogs", "Sea", "Human"),
    )
    plan = pd.DataFrame(
        [
            {
                "eraser": eraser, "task": "Van Gogh", "task_kind": "artist", "kind": "artist", "attack": "", "label": style,
                "role": "erase" if style == "Van Gogh" else "retain", "prompt": f"A {thing} image in {style} style.",
                "prompt_id": f"{style}/{thing}/{seed}", "seed": seed, "key": f"{eraser}{style}{thing}{seed}", "edit_key": "",
                "original_key": f"none{style}{thing}{seed}", "clean_key": f"{eraser}{style}{thing}{seed}",
                "style_asked": style, "object_asked": thing, "style": rng.choice(styles), "object": rng.choice(objects),
            }
            for eraser in ("none", "uce") for style in styles for thing in objects for seed in (188, 288)
        ]
    )  # fmt: skip
    metrics = [UnlearnCanvas(), UnlearnCanvas(report="cross")]
    assert metrics[0].records_id == metrics[1].records_id and metrics[0].id != metrics[1].id
    answers = ["style", "object", "style_asked", "object_asked"]
    measured = measure(plan.drop(columns=answers), {metrics[0].records_id: plan[["key", "prompt", *answers]]}, metrics)
    ours = measured[(measured.eraser == "uce") & (measured.task == "all")].set_index(["metric", "role"]).value
    ua, ira, cra = released(plan[plan.eraser == "uce"], "Van Gogh")
    own, cross = metrics[0].id, metrics[1].id
    assert (1 - ours[own, "erase"], ours[own, "retain"]) == pytest.approx((ua, ira))
    assert ours[cross, "retain"] == pytest.approx(cra), "over all images, the erased style's too"
    assert (cross, "erase") not in ours.index


def test_of_a_task_that_erases_objects_the_domains_change_places() -> None:
    rows = plan_rows(["Dogs"], kind="object").assign(
        style="Monet", object="Dogs", style_asked="Winter", object_asked="Dogs"
    )
    assert UnlearnCanvas().values(rows).tolist() == [1.0] and UnlearnCanvas(report="cross").values(rows).tolist() == [
        0.0
    ]
    assert UnlearnCanvas().answers(rows).tolist() == ["Dogs in Monet"]


def test_what_is_absent_is_a_sentence_with_the_lines_that_make_it(tmp_path: Path, files: dict[str, str]) -> None:
    reason = UnlearnCanvas(style=files["style"]).unavailable()
    assert (
        "classifier of objects: no file" in reason
        and "save_file" in reason
        and "metric.unlearncanvas_own.object=FILE" in reason
    )
    pickle = tmp_path / "style50.pth"
    pickle.write_bytes(b"x")
    assert "style50.pth is no .safetensors" in UnlearnCanvas(style=str(pickle), object=files["object"]).unavailable()
    assert UnlearnCanvas(**files).unavailable() is None
    assert UnlearnCanvas(**files).rule_version == UnlearnCanvas().rule_version == "1"
    assert UnlearnCanvas(**files).version != UnlearnCanvas().version


def test_a_wrong_file_prompt_or_report_is_refused(files: dict[str, str]) -> None:
    rows = plan_rows(["Van Gogh"], kind="artist", prompts=["A Dogs image in Van Gogh style."])
    swapped = UnlearnCanvas(style=files["object"], object=files["object"], network=SMALL, device="cpu")
    with pytest.raises(UserError, match=r"no classifier of 51 styles .*: head\.(bias|weight) is \(20,"):
        swapped.score(pictures(1), rows)
    good = UnlearnCanvas(**files, network=SMALL, device="cpu")
    for prompt, message in (
        ("a photo of a dog", "not one of UnlearnCanvas's"),
        ("A Dog image in Monet style.", "Did you mean 'Dogs'"),
    ):
        with pytest.raises(UserError, match=message):
            good.score(pictures(1), rows.assign(prompt=prompt))
    with pytest.raises(UserError, match="not one of own, cross"):
        UnlearnCanvas(report="both")


def test_the_names_of_the_config_are_the_classifiers() -> None:
    for side in ("style", "object"):
        fill = compose([f"prompts=unlearncanvas_{side}"]).prompts.fill
        assert (tuple(fill.style), tuple(fill.object)) == (CANVAS_STYLES, CANVAS_OBJECTS)
        concepts = compose([f"task=unlearncanvas_{side}"]).task.concepts
        assert tuple(concepts) == (CANVAS_STYLES if side == "style" else CANVAS_OBJECTS)
    assert len(CANVAS_STYLES) == 51 and len(CANVAS_OBJECTS) == 20
