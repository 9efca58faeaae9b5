"""The pages' templates."""

from __future__ import annotations

import jinja2


def load_template(name: str) -> jinja2.Template:
    """Load a template of ``templates/``; what it inserts is escaped, and a missing value is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
