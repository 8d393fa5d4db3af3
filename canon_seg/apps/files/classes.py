"""Describe what the class numbers of a model stand for: names, ids in the data set, colours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Classes:
    """Hold what is known of the classes 0, 1, ... of a model.

    Attributes:
        names: of the first classes.
        ids: of the first classes in their data set; others have their number + 1.
        colors: RGB, 0..255, of the first classes.
    """

    names: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()

    def name(self, label):
        """Return the name of a class number; "class N" where it is not known."""
        return self.names[label] if label < len(self.names) else f"class {label}"

    def id(self, label):
        """Return the id in the data set of a class; numbers from 1 where ids are not known."""
        return self.ids[label] if label < len(self.ids) else label + 1

    def color(self, label):
        """Get the class's colour, or None; that of a single class would tell nothing."""
        return self.colors[label] if 1 < len(self.colors) > label else None

    def followed_by(self, other, start):
        """Join these classes up to ``start`` and those of ``other`` from that number on."""
        both = (self, range(start)), (other, range(len(other.names)))
        colors = [one.color(label) for one, labels in both for label in labels]
        ids = [self.id(label) for label in range(start)]
        ids += other.ids or range(start + 1, start + 1 + len(other.names))
        return Classes(
            tuple(one.name(label) for one, labels in both for label in labels),
            tuple(ids),
            () if None in colors else tuple(colors),
        )


OBJECTS = Classes(("object",))
