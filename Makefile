# distbal: everything that is done with a checkout. `make` alone lists it.
# Nothing has to be set up first: what a target needs is made in .venv, and Debian's programs are installed where that is
# allowed (as root; as another user you are told what to install).

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.distbal-installed
# how long the soak lasts
MINUTES ?= 5
# further arguments for pytest: make test ARGS="-k wire -x"
ARGS   ?=

# for `make install` (packagers): DESTDIR is put before every path
DESTDIR    ?=
PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
BINDIR     ?= $(PREFIX)/bin
MANDIR     ?= $(PREFIX)/share/man
DOCDIR     ?= $(PREFIX)/share/doc/distbal
UNITDIR    ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
# where shells look for what completes a command's words
BASHDIR    ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR     ?= $(PREFIX)/share/zsh/site-functions
FISHDIR    ?= $(PREFIX)/share/fish/vendor_completions.d
# what the unit starts
DISTBAL     ?= /opt/distbal/bin/distbal

# the pure core: tests/test_imports.py keeps Twisted, files and clocks out of these, and their coverage is held higher
CORE := access activity carried changes checked decisions errors evidence health history hosts judge loads outcomes past policies queues ranking remembered report requests scheduler snapshot standing takeup waits why wire

CFLAGS  ?= -O2
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' distbal/__init__.py)
WRAP_SOURCES := $(wildcard distbal/wrap/*.c)
LINTED  := distbal tests $(foreach extra,bench demo,$(if $(wildcard $(extra)/*.py),$(extra))) twisted/plugins/distbal_plugin.py

comma := ,
empty :=
space := $(empty) $(empty)

.PHONY: help venv programs test soak soak-weights lint demo screenshots bench bench-builds bench-proxy bench-monitors bench-web bench-kept wrap install clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

venv: $(STAMP)  ## set up .venv: distbal, as this checkout has it, and all that tests need

$(STAMP): setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'distbal needs Python 3.11 or later; "$(PYTHON)" is not. Name one: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$$package"; \
		else \
			echo "$(PYTHON) cannot make environments here: apt-get install $$package" >&2; exit 1; \
		fi; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@# the client comes from `make wrap`, which follows its sources
	DISTBAL_WRAP=no $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

programs:
	@sh tests/install-programs

test: programs lint wrap  ## set up everything, then lint, all tests, and what they cover
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(ARGS)
	$(BIN)/python -m coverage combine --quiet
	@echo 'All of it, by branches (85 % is asked for):'
	$(BIN)/python -m coverage report --fail-under=85
	@echo 'The core (95 % is asked for):'
	$(BIN)/python -m coverage report --fail-under=95 --include='$(subst $(space),$(comma),$(CORE:%=distbal/%.py))'

soak: $(STAMP)  ## real jobs by all ways in, for MINUTES=5, with random faults, upgrades and kills (SEED= for the same again)
	@sh tests/install-programs cc distcc distccd tclsh
	@$(MAKE) --no-print-directory wrap
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

soak-weights: $(STAMP)  ## what is shown in minutes, on a machine that does nothing else: weights that follow the load
	@sh tests/install-programs cc distcc distccd sshd ssh-keygen
	DISTBAL_SOAK=1 $(BIN)/python -m pytest -s -o faulthandler_timeout=1200 tests/integration/test_real_weights.py $(ARGS)

lint: $(STAMP)  ## ruff and mypy
	@failed=; for tool in 'ruff check .' 'ruff format --check .' 'mypy $(LINTED)'; do \
		echo "$$tool"; $(BIN)/$$tool || failed=$$failed$${tool%% *}' '; done; \
	[ -z "$$failed" ] || { echo "not clean: $$failed" >&2; exit 1; }

demo: $(STAMP)  ## a build over three local servers, shown as it goes
	@sh tests/install-programs cc make distcc distccd
	@$(MAKE) --no-print-directory wrap
	PATH="$(CURDIR)/$(BIN):$$PATH" demo/run

screenshots: $(STAMP)  ## pictures of the status page, in build/screenshots, and the one of the README
	@sh tests/install-programs chromium pngquant
	$(BIN)/python demo/screenshots.py build/screenshots --keep build/screenshots/page.png
	pngquant --force --quality 60-95 --strip --output docs/page.png 128 build/screenshots/page.png

bench: $(STAMP)  ## the README's figures, measured here
	@$(MAKE) --no-print-directory wrap
	PATH="$(CURDIR)/$(BIN):$$PATH" bench/run

bench-builds: $(STAMP)  ## real builds by way of distbal, and without it
	@sh tests/install-programs cc make distcc distccd tclsh
	PATH="$(CURDIR)/$(BIN):$$PATH" bench/run --only builds

bench-proxy: $(STAMP)  ## what a job costs by way of the proxy, beside HAProxy and Twisted's portforward
	@# Debian's haproxy is where an ordinary user does not look
	@PATH="$$PATH:/usr/sbin" sh tests/install-programs haproxy
	PATH="$(CURDIR)/$(BIN):$$PATH" bench/run --only proxy --only proxy-idle --only proxy-fair

bench-monitors: $(STAMP)  ## what it takes to ask a thousand hosts how they are, and what jobs notice of it
	@PATH="$$PATH:/usr/sbin" sh tests/install-programs sshd ssh-keygen snmpd
	PATH="$(CURDIR)/$(BIN):$$PATH" bench/run --only monitors

bench-web: $(STAMP)  ## what a grant costs with the page open in 20 browsers and metrics scraped every second
	PATH="$(CURDIR)/$(BIN):$$PATH" bench/run --only web

bench-kept: $(STAMP)  ## what it costs that a crash loses no job, and how long clients wait at an upgrade and at a crash
	PATH="$(CURDIR)/$(BIN):$$PATH" bench/run --only kept

wrap: build/distbal-wrap $(STAMP)  ## compile the client, distbal-wrap, to build/ and .venv/bin
	@if [ -e build/distbal-wrap ] && ! cmp -s build/distbal-wrap $(BIN)/distbal-wrap; then \
		install -m 755 build/distbal-wrap $(BIN)/distbal-wrap; fi

build/distbal-wrap: $(WRAP_SOURCES) $(wildcard distbal/wrap/*.h) distbal/__init__.py
	@mkdir -p build
	@if command -v $(firstword $(CC)) >/dev/null; then \
		echo $(CC) $(CFLAGS) -o $@ $(WRAP_SOURCES); \
		$(CC) $(CFLAGS) -DDISTBAL_VERSION='"$(VERSION)"' -o $@ $(WRAP_SOURCES) $(LDFLAGS); \
	else echo 'No C compiler: distbal-wrap is not built. On Debian: apt-get install gcc libc6-dev'; fi

# The Python package itself: pip install --root=$(DESTDIR) --prefix=$(PREFIX) . with DISTBAL_WRAP=no
install: build/distbal-wrap  ## for packagers: unit, example configuration, man pages, completions, client (DESTDIR=, PREFIX=)
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(SYSCONFDIR)/distbal $(DESTDIR)$(DOCDIR)/examples
	install -m 755 build/distbal-wrap $(DESTDIR)$(BINDIR)/distbal-wrap
	install -d $(DESTDIR)$(UNITDIR)
	sed 's,/opt/distbal/bin/distbal,$(DISTBAL),' etc/distbal.service > $(DESTDIR)$(UNITDIR)/distbal.service
	chmod 644 $(DESTDIR)$(UNITDIR)/distbal.service
	install -D -m 644 etc/sysusers.d/distbal.conf $(DESTDIR)$(SYSUSERSDIR)/distbal.conf
	@# a configuration that is in use stays as it is
	test -e $(DESTDIR)$(SYSCONFDIR)/distbal/hosts.yaml || install -m 644 etc/hosts.yaml $(DESTDIR)$(SYSCONFDIR)/distbal/hosts.yaml
	install -m 644 etc/hosts.yaml etc/hosts-full.yaml etc/prometheus/*.yml $(DESTDIR)$(DOCDIR)/examples
	for page in $(wildcard docs/man/*.1); do install -D -m 644 $$page $(DESTDIR)$(MANDIR)/man1/$${page##*/}; done
	for page in $(wildcard docs/man/*.5); do install -D -m 644 $$page $(DESTDIR)$(MANDIR)/man5/$${page##*/}; done
	install -D -m 644 distbal/completions/distbal.bash $(DESTDIR)$(BASHDIR)/distbal
	install -D -m 644 distbal/completions/distbal.zsh $(DESTDIR)$(ZSHDIR)/_distbal
	install -D -m 644 distbal/completions/distbal.fish $(DESTDIR)$(FISHDIR)/distbal.fish

clean:  ## remove what was built, .venv included
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find twisted distbal -name dropin.cache -delete
