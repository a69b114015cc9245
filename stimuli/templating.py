"""jinja2 templates inside a package: escaped for pages, plain for scripts. jinja2 is imported when one is rendered."""

from __future__ import annotations

from importlib.resources import files
from typing import Any


def render(package: str, template: str, *, escape: bool = True, **values: Any) -> str:
    """
    Render a template from the folder ``templates`` of a package.

    Parameters
    ----------
    package : str
        Import name of the package.
    template : str
        File name of the template; it may include others of that folder.
    escape : bool
        Escape every value for HTML.
    **values : object
        What the template names; a name that it does not get is an error.

    Returns
    -------
    str
        The text.

    Raises
    ------
    FileNotFoundError
        If the package has no such template.

    Examples
    --------
    >>> "width: 120px" in render("stimuli", "index.css.j2", tile=120)
    True
    """
    import jinja2

    folder = files(package).joinpath("templates")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
