"""``erasebench list``: what can be chosen, one line each, read from the config tree itself."""

from __future__ import annotations

from importlib.resources import files

from omegaconf import OmegaConf

from erasebench.config import CONFIG_MODULE, groups
from erasebench.errors import UserError, suggest

TOPICS = {
    "erasers": "method",
    "metrics": "metric",
    "prompts": "prompts",
    "models": "model",
    "protocols": "protocol",
    "tasks": "task",
    "experiments": "experiment",
}
"""What people call a group, and the group's name in overrides."""


def listing(topic: str | None = None) -> str:
    """The options of a topic, or of all of them, with the first comment of each option's file.

    Raises:
        UserError: an unknown topic.
    """
    if topic is not None and topic not in TOPICS:
        raise UserError(f"list {topic}: no such topic.{suggest(topic, TOPICS)} Known: {', '.join(TOPICS)}")
    lines = []
    known = groups()
    for title, group in TOPICS.items():
        if topic not in (None, title) or not known.get(group):
            continue
        lines.append(
            f"{title} (choose with {group}=NAME{' or ' + group + '=[NAME,NAME]' if group == 'metric' else ''})"
        )
        for name in known[group]:
            lines.append(f"  {name:<24} {first_comment(group, name)}")
        lines.append("")
    if topic in (None, "prompts"):
        from erasebench.prompt_files import schemas

        lines.append("prompt files that are read (prompts=file prompts.source=PATH), recognised by their columns")
        for schema in schemas():
            lines.append(f"  {schema.name:<24} {schema.source}{'; ' + schema.note if schema.note else ''}")
    return "\n".join(lines).rstrip()


def first_comment(group: str, name: str) -> str:
    """The first comment of an option's file that is not Hydra's package line: what the option is."""
    text = files(CONFIG_MODULE).joinpath(group, f"{name}.yaml").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").strip()
    return OmegaConf.create(text).get("_target_", "")
