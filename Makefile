PYTHON ?= python3
PIP = .venv/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: demo gallery matrix models prompts test lint notebooks docs clean

demo: .venv/core  ## train, explain and compare graph networks and a denoiser; writes demo/report.html
	.venv/bin/python -m models.demo --out demo

gallery: .venv/core  ## a panel of every system, asked one question and held to its proof; writes gallery/index.html
	.venv/bin/python -m models.gallery --out gallery/index.html

matrix: .venv/core  ## every explainer on each kind of model, beside brute force; writes models/MATRIX.md and the README's table
	.venv/bin/python -m models.matrix

models: .venv/core  ## train each system of models/ that is held to a paper (needs EXPLAIN_DATA); writes models/RESULTS.md
	.venv/bin/python -m models.results

prompts: .venv/core  ## train the pipeline of words to digits, or find it in the cache, and hold its words to their causes
	.venv/bin/python -m models.planted_words

test: .venv/dev lint  ## linters, types, every test
	.venv/bin/python -m pytest -n auto --dist loadgroup

lint: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

notebooks: .venv/dev  ## run every notebook at full size; executed copies go to demo/notebooks
	.venv/bin/python -m tests.run_notebooks

docs: .venv/dev  ## the pages of notebooks/, a page a method and a page an error, as a site; a warning is an error
	.venv/bin/python -W ignore -m mkdocs build --strict

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/core: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[prompts]"
	touch $@

.venv/dev: .venv/core
	$(PIP) -e ".[dev,docs,verify,cluster,notebooks,prompts,formula]"
	touch $@

clean:
	rm -rf .venv demo gallery site
