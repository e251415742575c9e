"""Build script; tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="tfdist",
    version="0.1.0",
    description="Keras 3 on TensorFlow, trained on many devices and machines by changing one line",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["tfdist", "tfdist.*"]),
    package_data={"tfdist": ["py.typed"], "tfdist.data": ["digits/*"]},
    python_requires=">=3.10",
    install_requires=[
        "tensorflow>=2.21,<2.22",
        # Keras 3.13 dropped Python 3.10; _compat/ knows these two minor versions.
        "keras>=3.15,<3.16; python_version>='3.11'",
        "keras>=3.12.4,<3.13; python_version<'3.11'",
        "numpy>=1.26",
        "absl-py>=2.1",
        "google-crc32c>=1.5",  # checksums of TFRecord files; TensorFlow has no public function for them
        "omegaconf>=2.3",
        "packaging>=23",
        "pyyaml>=6.0.1",
        "tqdm>=4.66",
    ],
    extras_require={
        # mpi4py's wheels find the MPI of the environment at run time; MPICH is one that needs no administrator.
        "mpi": ["mpi4py>=4.1", "mpich>=4.3; sys_platform!='win32'"],
        "plot": ["matplotlib>=3.9"],
        "test": [
            "pytest>=8.3",
            "pytest-timeout>=2.3.1",
            "psutil>=6",
            "ruff>=0.17",
            "mypy>=2.4",
            "tf-keras>=2.21",
            "tensorboard>=2.20",
            # 15 MB; the tests that need them skip without.
            "mpi4py>=4.1; sys_platform=='linux' and platform_machine=='x86_64'",
            "mpich>=4.3; sys_platform=='linux' and platform_machine=='x86_64'",
        ],
    },
    entry_points={"console_scripts": ["tfdist = tfdist.cli.main:main"]},
)
