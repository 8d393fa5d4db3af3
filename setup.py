"""Put the configs into the wheel; all else about the package is said in pyproject.toml.

`make env` makes an environment with the versions that the tests use.
"""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

# Relative: setuptools builds in the folder of this file.
CONFIGS = Path("configs")


class BuildWithConfigs(build_py):
    """Copy the configs, which lie at the top of a checkout, into the package of a wheel.

    Naming ``configs`` as the folder of a package ``canon_seg.configs`` would do it too, but then
    an editable installation works by an import hook. Python asks it only after it has found the
    folder of a clone that is named canon_seg, as a namespace package, in the current folder. With
    this class it is an entry of the path, where the package itself is found first.
    """

    def run(self):
        """Build the modules; in a wheel, also the configs."""
        super().run()
        if not self.editable_mode:
            for file in self._configs():
                target = Path(self.build_lib, "canon_seg", file)
                self.mkpath(str(target.parent))
                self.copy_file(file, str(target))

    def get_source_files(self):
        """Return the files of a source distribution."""
        return [*super().get_source_files(), *self._configs()]

    @staticmethod
    def _configs():
        return sorted(map(str, CONFIGS.rglob("*.yaml")))


setup(
    packages=find_packages(include=["canon_seg", "canon_seg.*"]),
    package_dir={"": "."},
    cmdclass={"build_py": BuildWithConfigs},
)
