"""Token rows taken the long way: the pipeline's own prompt encoding, all 77 positions, one text at a time."""

from __future__ import annotations

import torch


@torch.no_grad()
def rows(pipe, text):
    """Rows ``[77, d]`` float64 of a text by ``pipe.encode_prompt``, and its number of content tokens."""
    embedded = pipe.encode_prompt(text, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)[0]
    ids = pipe.tokenizer(text, truncation=True, max_length=pipe.tokenizer.model_max_length).input_ids
    return embedded[0].double(), len(ids) - 2


def pick(pipe, text, rule):
    """The rows of a text by a token rule, ``[n, d]`` float64."""
    all_rows, n = rows(pipe, text)
    if rule == "mean":
        return all_rows[: n + 2].mean(dim=0, keepdim=True)
    first, last = {
        "last_content": (n, n),
        "content": (1, n),
        "content_eos": (1, n + 1),
        "eos": (n + 1, n + 1),
        "tail": (n, 76),
        "all": (0, 76),
        "no_bos": (1, 76),
    }[rule]
    return all_rows[first : last + 1]
