# SPDX-License-Identifier: Apache-2.0
"""A drawing as it has to be inside a page: without addresses, with ids of its own, in the page's type, and described.

matplotlib writes a file; a page wants an element. Several drawings in one page share one space of ids, so the ids that a drawing refers
to begin with its name and all others go: a marker of the first figure must not be drawn by the second. Namespaces go, because an HTML
parser knows `svg` without them and a page that names no address is easily shown to contact none. Metadata and style sheets go, since a
style inside one drawing would hold for the whole page; families of type go, so that a figure is set like the text around it.
"""

import re
from xml.etree import ElementTree

_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FAMILY = re.compile(r"font-family:[^;]*;?\s*")
_NO_TURN = re.compile(r"^rotate\(-?0 [^)]*\)$")
_DROPPED = {"metadata", "style"}


def inline(drawing: str, *, name: str, title: str, description: str) -> str:
    """One `<svg>` element with a title and a description for those who hear a page instead of seeing it.

    Guarantees: no id that a drawing of another `name` could have; no address, metadata or style sheet; the same bytes for the same input.
    """
    root = ElementTree.fromstring(drawing)  # noqa: S314 - written by our own figures a moment ago
    _without_namespaces(root)
    _without(root, _DROPPED)
    _own_ids(root, name)
    view_box = root.get("viewBox", "")
    root.attrib = {"role": "img", "aria-labelledby": f"{name}-title {name}-desc", "viewBox": view_box}
    root.insert(0, _text("desc", f"{name}-desc", description))
    root.insert(0, _text("title", f"{name}-title", title))
    return ElementTree.tostring(root, encoding="unicode")


def _without_namespaces(root: ElementTree.Element) -> None:
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        if "style" in element.attrib:
            element.attrib["style"] = _FAMILY.sub("", element.attrib["style"])
        if _NO_TURN.match(element.get("transform", "")):
            del element.attrib["transform"]
        if element.tag != "text":
            element.text = None
        element.tail = None


def _without(root: ElementTree.Element, tags: set[str]) -> None:
    for parent in root.iter():
        for child in [child for child in parent if child.tag in tags or (child.tag == "defs" and all(part.tag in tags for part in child))]:
            parent.remove(child)


def _own_ids(root: ElementTree.Element, name: str) -> None:
    """Ids that something refers to are prefixed, with every reference to them; the rest are dropped."""
    used = {value for element in root.iter() for value in _references(element)}
    for element in root.iter():
        identifier = element.attrib.pop("id", None)
        for key, value in element.attrib.items():
            if key == "href":
                element.attrib[key] = f"#{name}-{value.removeprefix('#')}"
            else:
                element.attrib[key] = _REFERENCE.sub(rf"url(#{name}-\1)", value)
        if identifier in used:
            element.set("id", f"{name}-{identifier}")


def _references(element: ElementTree.Element) -> list[str]:
    found = [match for value in element.attrib.values() for match in _REFERENCE.findall(value)]
    if "href" in element.attrib:
        found.append(element.attrib["href"].removeprefix("#"))
    return found


def _text(tag: str, identifier: str, words: str) -> ElementTree.Element:
    element = ElementTree.Element(tag, {"id": identifier})
    element.text = words
    return element
