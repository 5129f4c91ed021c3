# The first use of any target makes the virtual environment; nothing outside this folder changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Not the script insigh-ota: this runs the code of the folder that make is in.
OTA := $(BIN)/python -m insigh_ota

.DEFAULT_GOAL := help
.PHONY: help setup demo check test slow lint format \
	powercut obstacles mix keys badlink archives fuzz scripts orders lives wakes brokers fleet rollouts bench ram \
	board provision deploy ca status undeploy package dist romfs frozen aedes releases screenshots lock clean

##@ First look

help: ## list what can be made | 0 s
	@awk -F ' *## *| *[|] *' ' \
		/^##@/ { print (groups++ ? "\n" : "") substr($$0, 5) } \
		/^[a-z]+:.* ## / { \
			sub(/:.*/, "", $$1); name = "make " $$1; took = $$3; line = ""; \
			count = split($$2 " ", words, " "); \
			for (n = 1; n <= count; n++) { \
				if (length(line words[n]) > 48) { show(); line = "" } \
				line = line words[n] " " } \
			show() } \
		function show() { \
			text = sprintf("  %-15s %-50s %s", name, line, took); name = took = ""; \
			sub(/ +$$/, "", text); print text }' $(MAKEFILE_LIST)

setup: $(READY) ## the virtual environment, with everything pinned | 30 s

$(READY): requirements.txt host_sim/node/stock.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
		{ echo "Python's venv is missing: on Debian, apt install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV) (first use only) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check -r requirements.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m host_sim.node.stock
	@touch $@

demo: $(READY) ## live: an update, a power cut, a broken version | 40 s
	@$(OTA) demo

check: $(READY) lint ## lint, and a few tests of each capability | 1 min
	@$(BIN)/python -m pytest -q -n 2 -m 'check and not slow' $$(grep -rl --include="*.py" pytest.mark.check tests)

##@ Develop

test: $(READY) lint ## lint, and all tests but the slow ones | 10 min
	@$(BIN)/python -m pytest -q -n 4

slow: $(READY) ## the tests that take too long for make test (N=at most so many cases of each) | 40 min
	@$(BIN)/python -m pytest -q -n 4 -m slow $(if $(N),--cases $(N))
	@$(BIN)/python -m pytest -q -m alone

lint: $(READY) ## look for what is not in the project's style, or not in MicroPython 1.22 | 1 s
	@$(BIN)/ruff check -q . && $(BIN)/ruff format -q --check . && $(BIN)/python -m tools.features

format: $(READY) ## put the code into the project's format | 1 s
	@$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format .

##@ Campaigns: N= takes fewer cases, Ctrl-C stops

powercut: $(READY) ## cut the power at every flash operation (S=scenario, N=only so many of each) | 1 h
	@$(OTA) powercut $(if $(S),--scenario $(S)) $(if $(N),--sample $(N))

obstacles: $(READY) ## something in the way, a full flash, flipped bits, in each phase (N=so many of each, S=scenario) | 1 h
	@$(OTA) powercut --obstacles --full --bits $(if $(N),--sample $(N)) \
		$(if $(S),--scenario $(S))

mix: $(READY) ## 5,000 random obstacles, full flashes and flipped bits, each with a power cut (N=how many) | 1 h
	@$(OTA) powercut --mix $(or $(N),5000)

keys: $(READY) ## Ctrl-C and soft resets at each statement of the boot path (N=so many, S=scenario) | 1 h
	@$(OTA) powercut --keys $(if $(N),--sample $(N)) $(if $(S),--scenario $(S))

badlink: $(READY) ## cut and silence the link at every place (P=part, N=at most so many) | 5 min
	@$(BIN)/python -m host_sim badlink $(if $(P),--part $(P)) $(if $(N),--sample $(N))

archives: $(READY) ## 20,000 generated archives, read by the device's reader and by CPython's tarfile | minutes
	@$(BIN)/python -m tests.package.archives $(if $(SEED),--seed $(SEED))

fuzz: $(READY) ## feed two million mutated inputs to the agent (N=how many) | minutes
	@$(BIN)/python -m host_sim fuzz $(if $(N),--cases $(N))

scripts: $(READY) ## 500 random fault scripts, one rule for the end (N=how many, SEED=one of them) | minutes
	@$(BIN)/python -m host_sim scripts $(if $(N),--count $(N)) $(if $(SEED),--seed $(SEED))

orders: $(READY) ## 1,000 random scripts of cancel and replace, one rule for the end (N=how many, SEED=one) | minutes
	@$(BIN)/python -m host_sim orders $(if $(N),--count $(N)) $(if $(SEED),--seed $(SEED))

lives: $(READY) ## 2,000 random lives of a node, watched by a model (N=how many, SEED=one of them) | minutes
	@$(BIN)/python -m host_sim lives $(if $(N),--count $(N)) $(if $(SEED),--seed $(SEED))

wakes: $(READY) ## 1,000 random schedules of wakes that each fetch a part (N=how many, SEED=one of them) | minutes
	@$(BIN)/python -m host_sim wakes $(if $(N),--count $(N)) $(if $(SEED),--seed $(SEED))

brokers: $(READY) ## 200 requests on each broker, plain and with TLS (N=how many, C=nats or C=nats/tls for one, J=rows at a time) | minutes
	@$(BIN)/python -m host_sim brokers $(if $(N),--requests $(N)) $(if $(C),--cell $(C)) \
		$(if $(J),--jobs $(J))

fleet: $(READY) ## 200 nodes at one console: asked at once, then without their broker (N=how many); MIXED=1: 100 of several releases | minutes
	@$(BIN)/python -m host_sim fleet $(if $(N),--nodes $(N)) $(if $(MIXED),--mixed)

rollouts: $(READY) ## packages, good and bad, to 10,000 light nodes in waves (N=how many, C=case) | 25 min
	@$(BIN)/python -m host_sim rollouts $(if $(N),--nodes $(N)) $(if $(C),--case $(C))

bench: $(READY) ## measure flash, heap, code, wear and time, and write docs/benchmarks.md (P=part for one) | minutes
	@$(BIN)/python -m host_sim bench --write $(P)

frozen: $(READY) ## measure an agent that lies in the firmware: builds it (MPY=MicroPython's sources) | 10 min
	@$(BIN)/python -m host_sim frozen "$(MPY)" --write

ram: $(READY) ## what fits an ESP32's RAM, with an interpreter built for it ([SOURCES=a release]) | 2 min
	@$(BIN)/python -m host_sim.esp32.interpreter $(SOURCES)
	@SOURCES="$(SOURCES)" $(BIN)/python -m pytest -q -m esp32 tests/host_sim/test_esp32_heap.py

##@ Nodes and packages

board: $(READY) ## a virtual board for mpremote, on the port board.port ([IMG=board.img LINK=board.port]) | to Ctrl-C
	@$(OTA) board "$(or $(IMG),board.img)" --link "$(or $(LINK),board.port)"

provision: $(READY) ## write down who a node is ([ID= CHANNEL= SERVER= MQTT= TLS=0 FILE=], asks for the rest) | 1 s
	@$(OTA) provision $(if $(FILE),--file "$(FILE)") $(if $(ID),--id "$(ID)") \
		$(if $(CHANNEL),--channel "$(CHANNEL)") $(if $(SERVER),--server "$(SERVER)") \
		$(if $(MQTT),--mqtt "$(MQTT)") $(if $(TLS),--tls "$(TLS)")

deploy: $(READY) ## put the agent on a board (PORT= [SRC=1, AGENT=firmware, BOOT=keep or replace, TRIAL=keep, FILE=]) | 10 s
	@$(OTA) deploy --port "$(PORT)" $(if $(SRC),--src) \
		$(if $(AGENT),--agent "$(AGENT)") $(if $(BOOT),--boot "$(BOOT)") \
		$(if $(TRIAL),--trial "$(TRIAL)") $(if $(FILE),--provision "$(FILE)")

ca: $(READY) ## put trust anchors on a board (PORT= and HOST=server, CHAIN=file or CA=file) | 2 s
	@$(OTA) ca --port "$(PORT)" $(if $(HOST),--host "$(HOST)") \
		$(if $(CHAIN),--chain "$(CHAIN)") $(if $(CA),--file "$(CA)")

status: $(READY) ## what runs on a board (PORT= [STAY=1: do not reset it afterwards]) | 2 s
	@$(OTA) status --port "$(PORT)" $(if $(STAY),--stay)

undeploy: $(READY) ## take the agent and its configuration off a board (PORT=) | 2 s
	@$(OTA) undeploy --port "$(PORT)"

package: $(READY) ## make a package (SRC=folder OUT=file [GIT=A..B KEY=pem SEQUENCE=n TRY=img ARGS="…"]) | 2 s
	@$(OTA) package build "$(SRC)" --out "$(OUT)" $(if $(GIT),--git "$(GIT)") \
		$(if $(KEY),--key "$(KEY)") $(if $(SEQUENCE),--sequence "$(SEQUENCE)") \
		$(if $(TRY),--try "$(TRY)") $(ARGS)

dist: $(READY) ## dist/ with the compiled agent for mip, and package.json up to date | 2 s
	@$(OTA) dist

romfs: $(READY) ## the agent as an image for a firmware's ROMFS ([MORE=folder to add OUT=file]) | 2 s
	@$(OTA) romfs $(if $(OUT),--out "$(OUT)") $(if $(MORE),--more "$(MORE)")

##@ Upkeep

aedes: $(READY) ## install the broker aedes (npm, pinned) into the virtual environment, for its tests | 10 s
	@$(BIN)/python -m host_sim.console.aedes_broker

releases: $(READY) ## install MicroPython's releases for Node.js (npm, pinned) into it, for tests | 10 s
	@$(BIN)/python -m host_sim.releases.interpreters

screenshots: $(READY) ## the pictures of page and terminal in docs/, anew (needs Chromium) | 2 min
	@$(BIN)/python -m tools.screenshots page terminal

lock: $(READY) ## pin requirements.in, with all it pulls in, in requirements.txt | 10 s
	@$(BIN)/pip install -q --disable-pip-version-check uv
	@$(BIN)/uv pip compile -q --universal --python-version 3.10 --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links requirements.in -o requirements.txt

clean: ## remove what make made | 1 s
	@rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
