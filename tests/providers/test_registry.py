from __future__ import annotations

from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

import segue
from segue.model.errors import Conflict, InvalidValue, MissingKey, OperatorError, UnknownName
from segue.ports.provider import Endpoint
from segue.providers import OpenAI, make, resolve
from segue.transports.pooled import Pooled

KEYED = {"OPENAI_API_KEY": "sk-mine-0123456789"}


@pytest.mark.parametrize(
    ("name", "environment", "expected"),
    [
        (
            "openai:gpt-5-mini",
            KEYED,
            Endpoint("openai", "https://api.openai.com/v1", "gpt-5-mini", "OPENAI_API_KEY"),
        ),
        (
            "openai:gpt-5-mini",
            KEYED | {"OPENAI_BASE_URL": "https://gate.example/v1/"},
            Endpoint("openai", "https://gate.example/v1", "gpt-5-mini", "OPENAI_API_KEY"),
        ),
        (
            "openai:m",
            {"OPENAI_BASE_URL": "http://127.0.0.1:8080/v1"},
            Endpoint("openai", "http://127.0.0.1:8080/v1", "m"),
        ),
        (
            "openai:smollm2@http://127.0.0.1:8080/v1",
            KEYED,  # which isn't handed to whoever is there
            Endpoint("openai", "http://127.0.0.1:8080/v1", "smollm2"),
        ),
        (
            "openai:m@https://Gate.Example/v1/#GATE_KEY",
            {"GATE_KEY": "k"},
            Endpoint("openai", "https://gate.example/v1", "m", "GATE_KEY"),
        ),
        ("llamacpp:smollm2", {}, Endpoint("llamacpp", "http://127.0.0.1:8080/v1", "smollm2")),
        ("llamacpp:m@http://box:9000", {}, Endpoint("llamacpp", "http://box:9000/v1", "m")),
        ("ollama:llama3:8b", {}, Endpoint("ollama", "http://localhost:11434/v1", "llama3:8b")),
        (
            "ollama:llama3",
            {"OLLAMA_BASE_URL": "http://box/v1"},
            Endpoint("ollama", "http://box/v1", "llama3"),
        ),
        (
            "vllm:meta/llama@2@http://host:8000/v1",
            {"VLLM_API_KEY": "k"},
            Endpoint("vllm", "http://host:8000/v1", "meta/llama@2"),
        ),
        (
            "openai-responses:gpt-5",
            KEYED,
            Endpoint("openai-responses", "https://api.openai.com/v1", "gpt-5", "OPENAI_API_KEY"),
        ),
        (
            "azure:my-deployment",
            {"AZURE_OPENAI_ENDPOINT": "https://Mine.openai.azure.com/", "AZURE_OPENAI_API_KEY": "k"},
            Endpoint(
                "azure", "https://mine.openai.azure.com/openai/v1", "my-deployment", "AZURE_OPENAI_API_KEY"
            ),
        ),
        (
            "groq:llama",
            {"GROQ_API_KEY": "k"},
            Endpoint("groq", "https://api.groq.com/openai/v1", "llama", "GROQ_API_KEY"),
        ),
        (
            "mistral:mistral-small@http://127.0.0.1:9000",
            {"MISTRAL_API_KEY": "k"},
            Endpoint("mistral", "http://127.0.0.1:9000/v1", "mistral-small"),
        ),
        (
            "together:meta-llama/L",
            {"TOGETHER_API_KEY": "k"},
            Endpoint("together", "https://api.together.ai/v1", "meta-llama/L", "TOGETHER_API_KEY"),
        ),
        ("xai:grok-5", {"XAI_API_KEY": "k"}, Endpoint("xai", "https://api.x.ai/v1", "grok-5", "XAI_API_KEY")),
        ("vllm:m", {"VLLM_API_KEY": "k"}, Endpoint("vllm", "http://127.0.0.1:8000/v1", "m", "VLLM_API_KEY")),
    ],
)
def test_names(name: str, environment: dict[str, str], expected: Endpoint):
    assert resolve(name, environment) == expected
    provider = make(expected, environment, Pooled())
    assert isinstance(provider, OpenAI)
    assert (provider.name, provider.base_url) == (expected.provider, expected.base_url)
    assert provider.batches is (expected.provider not in ("llamacpp", "ollama", "vllm"))


@pytest.mark.parametrize(
    ("name", "environment", "expected"),
    [
        (
            "anthropic:claude-opus-5",
            {"ANTHROPIC_API_KEY": "k"},
            Endpoint("anthropic", "https://api.anthropic.com/v1", "claude-opus-5", "ANTHROPIC_API_KEY"),
        ),
        (
            "anthropic:m",
            {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": "https://gate.example"},
            Endpoint("anthropic", "https://gate.example/v1", "m", "ANTHROPIC_API_KEY"),
        ),
        (
            "gemini:gemini-2.5-flash",
            {"GEMINI_API_KEY": "k"},
            Endpoint(
                "gemini",
                "https://generativelanguage.googleapis.com/v1beta",
                "gemini-2.5-flash",
                "GEMINI_API_KEY",
            ),
        ),
        ("gemini:m@http://127.0.0.1:8000", {}, Endpoint("gemini", "http://127.0.0.1:8000/v1beta", "m")),
    ],
)
def test_names_of_those_with_a_protocol_of_their_own(
    name: str, environment: dict[str, str], expected: Endpoint
):
    assert resolve(name, environment) == expected
    provider = make(expected, environment, Pooled())
    assert (type(provider).__name__.lower(), provider.name) == (expected.provider, expected.provider)
    assert (provider.base_url, provider.batches) == (expected.base_url, True)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("opnai:gpt-5", "did you mean 'openai'"),
        ("OpenAI:gpt-5", "did you mean 'openai'"),
        ("mystery:x", "known are anthropic, azure, "),
        ("mystery:x", "; any server that speaks OpenAI's protocol is 'openai:MODEL@URL'"),
        ("gpt-5-mini", "openai:gpt-5-mini"),
        ("", "provider:model"),
    ],
)
def test_names_that_nobody_has(name: str, says: str):
    with pytest.raises(UnknownName) as caught:
        resolve(name, KEYED)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["openai:", "openai:@http://x/v1"])
def test_a_name_without_a_model(name: str):
    with pytest.raises(InvalidValue):
        resolve(name, KEYED)


def test_a_base_url_that_is_none():
    with pytest.raises(InvalidValue):
        resolve("openai:m", KEYED | {"OPENAI_BASE_URL": "localhost:8080"})


@pytest.mark.parametrize(
    ("name", "environment", "variable"),
    [
        ("openai:gpt-5", {}, "OPENAI_API_KEY"),
        ("openai:gpt-5", {"OPENAI_API_KEY": " "}, "OPENAI_API_KEY"),
        ("openai:gpt-5", {"OPENAI_BASE_URL": "https://api.openai.com/v1/"}, "OPENAI_API_KEY"),
        ("openai:m@https://x/v1#X_KEY", KEYED, "X_KEY"),
    ],
)
def test_a_missing_key_is_told_before_any_call(name: str, environment: dict[str, str], variable: str):
    with pytest.raises(MissingKey, match=f"set the environment variable {variable}") as caught:
        resolve(name, environment)
    assert isinstance(caught.value, OperatorError)
    assert caught.value.variable == variable


def test_a_key_that_was_there_when_the_name_was_resolved():
    endpoint = resolve("openai:gpt-5", KEYED)
    with pytest.raises(MissingKey):
        make(endpoint, {}, Pooled())


def test_organisation_and_project_go_with_openais_key_only():
    environment = KEYED | {"OPENAI_ORG_ID": "org", "OPENAI_PROJECT_ID": "proj"}
    own = make(resolve("openai:m", environment), environment, Pooled())
    other = make(resolve("openai:m@http://x/v1", environment), environment, Pooled())
    assert isinstance(own, OpenAI)
    assert isinstance(other, OpenAI)
    assert own._exchange.headers["OpenAI-Organization"] == "org"
    assert other._exchange.headers == {}


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr("segue.providers.declared.DECLARED", known := dict[str, Any]())
    monkeypatch.setattr("segue.providers.registry.DECLARED", known)
    return known


def test_providers_of_ones_own(declared: dict[str, Any]):
    made: list[Any] = []

    @segue.provider
    def mine(endpoint: Endpoint) -> Any:
        made.append(endpoint)
        return "a provider"

    @segue.provider(name="house-gate")
    def gate(endpoint: Endpoint) -> Any:
        return "another"

    endpoint = resolve("mine:m@http://x/v1#KEY", {})
    assert endpoint == Endpoint("mine", "http://x/v1", "m", "KEY")
    assert make(endpoint, KEYED, None) == "a provider"  # type: ignore[arg-type, comparison-overlap]
    assert made == [endpoint]
    assert resolve("mine:m", {}) == Endpoint("mine", "", "m")
    assert make(resolve("house-gate:m", {}), KEYED, None) == "another"  # type: ignore[arg-type, comparison-overlap]
    with pytest.raises(UnknownName, match="did you mean 'mine'"):
        resolve("mne:m", {})
    declared.clear()
    with pytest.raises(UnknownName, match="mine"):
        make(endpoint, KEYED, Pooled())


def test_names_that_no_provider_of_ones_own_can_have(declared: dict[str, Any]):
    for name in ("a:b", "a@b", "9", "-"):
        with pytest.raises(InvalidValue, match="a word, as before the colon of a model"):
            segue.provider(name=name)(lambda endpoint: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(InvalidValue, match="'openai' is there"):
        segue.provider(name="openai")(lambda endpoint: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(InvalidValue, match="a function that takes an Endpoint"):
        segue.provider("gateway")  # type: ignore[call-overload]
    assert not declared


def test_one_is_declared_in_one_file(declared: dict[str, Any], tmp_path: Path):
    text = "import functools, segue\n@segue.provider\n@functools.cache\ndef gate(endpoint): ..."
    for name in ("one", "other"):
        (tmp_path / f"{name}.py").write_text(text)
    run_path(str(tmp_path / "one.py"))
    run_path(str(tmp_path / "one.py"))  # as a notebook, or one that is loaded anew
    with pytest.raises(Conflict, match=r"'gate' is declared in .*one\.py and in .*other\.py"):
        run_path(str(tmp_path / "other.py"))


@pytest.mark.parametrize("provider", ["azure", "groq", "mistral", "openai-responses", "together", "xai"])
def test_a_provider_of_ones_own_needs_its_key(provider: str):
    place = {"AZURE_OPENAI_ENDPOINT": "https://mine.openai.azure.com"}
    with pytest.raises(MissingKey, match="_API_KEY"):
        resolve(f"{provider}:m", place)


def test_azure_is_somewhere_else_for_everybody():
    with pytest.raises(
        MissingKey, match="azure needs a place: set the environment variable AZURE_OPENAI_ENDPOINT"
    ):
        resolve("azure:m", {"AZURE_OPENAI_API_KEY": "k"})


def test_where_a_key_goes():
    environment = {"AZURE_OPENAI_ENDPOINT": "https://mine.openai.azure.com", "AZURE_OPENAI_API_KEY": "k"}
    made = make(resolve("azure:m", environment), environment, Pooled())
    assert isinstance(made, OpenAI)
    assert made._exchange.headers == {"api-key": "k"}


@pytest.mark.parametrize(
    ("provider", "batches"), [("azure", True), ("mistral", True), ("xai", True), ("ollama", False)]
)
def test_who_has_a_batch_api(provider: str, batches: bool):
    environment = {
        "AZURE_OPENAI_ENDPOINT": "https://a.b",
        "AZURE_OPENAI_API_KEY": "k",
        "MISTRAL_API_KEY": "k",
    }
    environment["XAI_API_KEY"] = "k"
    assert make(resolve(f"{provider}:m", environment), environment, Pooled()).batches == batches


@pytest.mark.parametrize("name", ["openai:m@", "groq:m@", "openai:m@#OPENAI_API_KEY"])
def test_an_empty_url_isnt_the_providers_own(name: str):
    with pytest.raises(InvalidValue, match="a URL after the @"):
        resolve(name, KEYED | {"GROQ_API_KEY": "k"})
