"""Where the numbers come from: versions, hardware, hashes, and the command that makes each run again."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from erasebench.report.runs import Run
from erasebench.runs.manifest import PromptsUsed, Start, command_line, read_starts

Facts = list[tuple[str, str]]


@dataclass(frozen=True)
class Provenance:
    """One run: facts, every start, prompt sets, metrics, packages, its command and its config."""

    name: str
    command: str
    facts: Facts
    starts: list[list[str]]
    prompts: list[dict[str, str]]
    metrics: list[dict[str, str]]
    packages: Facts
    config: str


def provenance(run: Run) -> Provenance:
    """What a run's manifest and config say, ready to be printed; what they do not say is left out."""
    manifest = run.manifest
    model = manifest.get("model", {})
    facts = [
        ("status", "finished" if run.finished else "incomplete"),
        ("last error", run.error),
        ("first started", manifest.get("started")),
        ("model", _joined(model.get("name"), model.get("source"), model.get("family"))),
        ("model revision", model.get("revision")),
        ("weights in", manifest.get("dtype")),
        ("hardware", manifest.get("device")),
        ("system", manifest.get("platform")),
        ("Python", manifest.get("python")),
        ("commit", manifest.get("commit")),
        ("config hash", manifest.get("config_hash")),
        ("protocol", run.about.protocol if run.about else None),
        ("protocol hash", manifest.get("protocol_hash")),
        ("prompts cut at 77 tokens", manifest.get("truncated_prompts")),
    ]
    return Provenance(
        run.name,
        run.command,
        [(name, str(value)) for name, value in facts if value not in (None, "")],
        [_start(start) for start in read_starts(run.folder)],
        [_prompt_set(kind, found) for kind, found in manifest.get("prompt_sets", {}).items()],
        [
            {
                "id": name,
                "needs": ", ".join(found.get("needs") or ()) or "nothing",
                "not_run": found.get("not_run") or "",
            }
            for name, found in manifest.get("metrics", {}).items()
        ],
        [(name, str(version)) for name, version in manifest.get("packages", {}).items()],
        yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
    )


START_HEADS = ["started", "hardware", "erasebench", "torch", "diffusers", "commit", "command"]
"""The columns of the table of starts."""


def _start(start: Start) -> list[str]:
    packages = start.get("packages") or {}
    return [
        start.get("started") or "",
        start.get("device") or "",
        *(packages.get(name) or "" for name in ("erasebench", "torch", "diffusers")),
        start.get("commit") or "",
        command_line(start) if start.get("command") else "",
    ]


def _joined(*words: str | None) -> str | None:
    return ", ".join(dict.fromkeys(word for word in words if word)) or None


def _prompt_set(kind: str, found: PromptsUsed) -> dict[str, str]:
    counts = found.get("counts", {})
    return {
        "kind": kind,
        "version": str(found.get("version", "")),
        "hash": str(found.get("hash", "")),
        "rows": str(counts.get("rows", "")),
        "distinct": str(counts.get("distinct", "")),
        "notes": "; ".join(found.get("notes") or ()),
    }
