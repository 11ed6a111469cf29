"""The documentation as pages: `pip install -e ".[docs]" && sphinx-build docs site`, then site/index.html."""

import elmo_hf

project = "elmo_hf"
author = "the authors of elmo_hf"
release = elmo_hf.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["*.ipynb"]
html_theme = "furo"
html_title = "elmo_hf"
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Args of task models", "params_style")]
