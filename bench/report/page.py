"""What turns results into HTML: the templates, their filters, the script and the data for it."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from featcache.toolkit import printable

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

# In the order of use: one text, so that one hash permits it.
_SCRIPTS = ("tables.js", "tiles.js", "matrix.js", "gallery.js", "page.js")


def environment() -> Environment:
    """Return the Jinja2 environment of the report's templates, which escapes every value."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable_text,
    )
    made.filters["printable"] = _printable_text
    made.filters["interval"] = interval_text
    made.globals.update(seconds=seconds_text, count=count_text, bytes=bytes_text, p=p_text)
    return made


def assets() -> dict[str, Any]:
    """Return the page's style and script, and the policy that permits no other script."""
    from markupsafe import Markup

    script = "".join(_template(name) for name in _SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return {"style": Markup(_template("report.css")), "script": Markup(script), "policy": policy}


def script_json(value: Any) -> Markup:
    r"""Return JSON for a ``script`` element, without characters that could end the element.

    Control characters and invalid UTF-8 in its text are the caller's to escape, by
    `featcache.toolkit.printable`.

    Examples
    --------
    >>> str(script_json({"name": "</script>"}))
    '{"name":"\\u003c/script\\u003e"}'
    """
    from markupsafe import Markup

    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _template(name: str) -> str:
    return (resources.files("bench.report") / "templates" / name).read_text("utf-8")


def _printable_text(value: Any) -> Any:
    """Escape names that no page can hold; pictures, which are markup, stay as they are."""
    return printable(value, keep="\n\t") if type(value) is str else value


def interval_text(bounds: tuple[float, float], form: str = "%.3f") -> str:
    """Return an interval as text, with an en dash between numbers without a sign."""
    low, high = bounds
    return f"{form % low}{' to ' if '+' in form else chr(0x2013)}{form % high}"


def seconds_text(value: float) -> str:
    """Return a duration as text, such as ``3.5 s``."""
    if value < 1:
        return f"{1000 * value:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def count_text(value: int) -> str:
    """Return a large number as text, such as ``2.3 M``."""
    if value >= 1e6:
        return f"{value / 1e6:.1f} M"
    return f"{value / 1e3:.0f} k" if value >= 1e3 else str(value)


def bytes_text(value: int) -> str:
    """Return a size as text, such as ``14 MiB``."""
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def p_text(value: float) -> str:
    """Return a p-value as text."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
