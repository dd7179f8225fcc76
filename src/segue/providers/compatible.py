"""Those who speak OpenAI's protocol, and where each differs: a place, a key, how files and jobs look."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ..ports.provider import Endpoint, Environment
from ..ports.transport import Transport

if TYPE_CHECKING:
    from .batches import Format
    from .openai import OpenAI
    from .speech import Speech

#: What goes with OpenAI's own key.
_ACCOUNT = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}


class Compatible(NamedTuple):
    """A provider that speaks OpenAI's protocol.

    `base_url` is where it is, empty where everybody has a place of his own; `path` what is added to a URL that
    names a host only. The environment has both under `url_variable` and `key_variable`. `format` says how its
    files and jobs look, None that it has no batch API.
    """

    base_url: str
    url_variable: str
    key_variable: str
    needs_key: bool = True
    path: str = "/v1"
    header: str = "Authorization"
    format: Callable[[], Format] | None = None
    speech: Callable[[], Speech] | None = None
    windows: bool = False

    def make(self, endpoint: Endpoint, environment: Environment, transport: Transport) -> OpenAI:
        """Who speaks for it."""
        from .openai import OpenAI

        headers = {}
        if endpoint.credential == "OPENAI_API_KEY":
            headers = {
                header: value for name, header in _ACCOUNT.items() if (value := environment.get(name, ""))
            }
        return OpenAI(
            endpoint.base_url,
            environment.get(endpoint.credential, "").strip() if endpoint.credential else "",
            transport,
            endpoint.provider,
            speech=self.speech() if self.speech is not None else None,
            batches=self.format is not None,
            windows=self.windows,
            format=self.format() if self.format is not None else None,
            header=self.header,
            headers=headers,
        )


# What only some need is loaded when one of them is made.
def _openai() -> Format:
    from .batches import Format

    return Format()


def _azure() -> Format:
    from .batches import AzureFormat

    return AzureFormat()


def _groq() -> Format:
    from .batches import GroqFormat

    return GroqFormat()


def _mistral() -> Format:
    from .mistral import MistralFormat

    return MistralFormat()


def _together() -> Format:
    from .together import TogetherFormat

    return TogetherFormat()


def _xai() -> Format:
    from .xai import XAIFormat

    return XAIFormat()


def _responses() -> Speech:
    from .responses import Responses

    return Responses()


_OPENAI = Compatible(
    "https://api.openai.com/v1", "OPENAI_BASE_URL", "OPENAI_API_KEY", path="", format=_openai
)
_AZURE = Compatible(
    "", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", path="/openai/v1", header="api-key", format=_azure
)  # fmt: skip

COMPATIBLE: dict[str, Compatible] = {
    "azure": _AZURE,
    "azure-responses": _AZURE._replace(speech=_responses),
    "groq": Compatible(
        "https://api.groq.com/openai/v1",
        "GROQ_BASE_URL",
        "GROQ_API_KEY",
        path="/openai/v1",
        format=_groq,
    ),
    "llamacpp": Compatible("http://127.0.0.1:8080/v1", "LLAMACPP_BASE_URL", "LLAMACPP_API_KEY", False),
    "mistral": Compatible(
        "https://api.mistral.ai/v1", "MISTRAL_BASE_URL", "MISTRAL_API_KEY", format=_mistral
    ),
    "ollama": Compatible("http://localhost:11434/v1", "OLLAMA_BASE_URL", "OLLAMA_API_KEY", False),
    "openai": _OPENAI,
    "openai-responses": _OPENAI._replace(speech=_responses, windows=True),
    "together": Compatible(
        "https://api.together.ai/v1", "TOGETHER_BASE_URL", "TOGETHER_API_KEY", format=_together
    ),
    "vllm": Compatible("http://127.0.0.1:8000/v1", "VLLM_BASE_URL", "VLLM_API_KEY", False),
    "xai": Compatible("https://api.x.ai/v1", "XAI_BASE_URL", "XAI_API_KEY", format=_xai),
}
