# make train | test | test-quick | clean
#
# Only make and Python 3.11 or 3.12 have to be installed, and nothing has to be sourced: the first call makes .venv.
#   PYTHON=python3.12      the Python to make .venv with; default: the first usable of python3.11, python3.12, python3
#   TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu'
#                          a PyTorch other than the default one with CUDA; remembered until `make clean`

# What to train: `make train ROBOT=cart_pole ACTIONS=continuous SEED=1 ARGS="--ticks 20000"`
ROBOT ?=
ACTIONS ?=
SEED ?=
ARGS ?=
PYTHON ?=
TORCH ?=
export PYTHON TORCH

# If a ROS, conda or virtual environment is active, it is ignored: it has other versions of the same packages.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV
unexport ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION CMAKE_PREFIX_PATH COLCON_PREFIX_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
ifneq ($(AMENT_PREFIX_PATH)$(ROS_DISTRO)$(_ROS_WHEELS_BOOTSTRAP_COMPLETE),)
unexport LD_LIBRARY_PATH
endif
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
export AMENT_PREFIX_PATH := $(VENV)
export RMW_IMPLEMENTATION := rmw_fastrtps_cpp

.DEFAULT_GOAL := help
.PHONY: help setup train test test-quick quick clean
.NOTPARALLEL:

help:
	@echo "make train       learn to drive with certified actions only, and report the result"
	@echo "                 ROBOT=<name> ACTIONS=discrete|continuous SEED=<number> ARGS='<more options of safe-support-ql train>'"
	@echo "make setup       only make .venv, with safe-support-ql in .venv/bin"
	@echo "make test        lint, types, unit tests, system tests over real DDS"
	@echo "make test-quick  the same without the system tests"
	@echo "make clean       remove .venv, builds and caches; runs/ stays"

setup:
	@.ci/setup

train: setup
	@"$(BIN)/safe-support-ql" train $(if $(ROBOT),--robot $(ROBOT)) \
	    $(if $(ACTIONS),--actions $(ACTIONS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

quick: setup
	@echo "== lint"
	@"$(BIN)/ruff" check
	@echo "== types"
	@"$(BIN)/mypy"
	@echo "== unit tests"
	@"$(BIN)/python" -m pytest -q test --ignore=test/system

test-quick: quick
	@echo "== passed: lint, types, unit tests"

test: quick
	@echo "== system tests"
	@"$(BIN)/python" -m pytest -q test/system
	@echo "== passed: lint, types, unit tests, system tests"

clean:
	rm -rf .venv .venv-setup.log build install log *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
