"""Price books: what a vendor asks for each model name, to fill in prices with and to compare bills by.

Pure: no database, no network. A book's prices are in its own currency; what that is in another one
is left to whoever asks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from gateway import default_prices
from gateway.presets import HOLYSHEEP, Registration
from gateway.relay.catalog import Price, Rates

ALWAYS_US = int(default_prices.ALWAYS.timestamp()) * 1_000_000


class Book(Protocol):
    """What one vendor asks for."""

    @property
    def slug(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def currency(self) -> str: ...

    def prices_of(self, model_name: str) -> tuple[Price, ...]:
        """Dated prices, oldest first, in the book's currency: without an exchange rate and without an id.

        None where the vendor does not have the model name.
        """

    def price_of(self, model_name: str) -> Price | None:
        """The last of them, which may not have begun yet."""


@dataclass(frozen=True, slots=True)
class WrittenBook:
    """One that is written down here: input and output per million tokens, by the vendor's model name."""

    slug: str
    name: str
    currency: str
    rates: Mapping[str, tuple[str, str]]
    """Decimal figures, because these are what one compares with the vendor's page."""
    aliases: Mapping[str, str]

    def prices_of(self, model_name: str) -> tuple[Price, ...]:
        price = self.price_of(model_name)
        return (price,) if price else ()

    def price_of(self, model_name: str) -> Price | None:
        """It holds at any time. Nothing is cheaper for being cached."""
        figures = self.rates.get(self.aliases.get(model_name, model_name))
        if figures is None:
            return None
        input_nanos, output_nanos = (int(Decimal(each) * default_prices.NANOS) for each in figures)
        return Price(0, ALWAYS_US, Rates(input_nanos, input_nanos, output_nanos), currency=self.currency)


@dataclass(frozen=True, slots=True)
class VendorBook:
    """A vendor's list prices as `genai-prices` has them; its data is loaded when a price is asked for."""

    slug: str
    name: str
    vendor: str
    """The vendor's id there."""
    currency: str = default_prices.CURRENCY

    def prices_of(self, model_name: str) -> tuple[Price, ...]:
        return default_prices.list_prices(model_name, self.vendor, "")

    def price_of(self, model_name: str) -> Price | None:
        prices = self.prices_of(model_name)
        return prices[-1] if prices else None


HOLYSHEEP_BOOK = WrittenBook(
    slug=HOLYSHEEP,
    name="HolySheep",
    currency="JPY",  # at its own rate: one yen for what costs a dollar at the vendor
    rates={
        "gpt-4.1": ("2", "8"),
        "gpt-4o": ("2.5", "10"),
        "gpt-4o-mini": ("0.15", "0.6"),
        "claude-sonnet-4-5": ("1.5", "15"),
        "gemini-2.5-flash": ("0.07", "2.5"),
        "deepseek-v3.2": ("0.07", "0.42"),
    },
    aliases={
        "claude-sonnet-4.5": "claude-sonnet-4-5",
        "gemini-2-5-flash": "gemini-2.5-flash",
        "deepseek-v3-2": "deepseek-v3.2",
    },
)
_VENDORS = {
    "anthropic": "Anthropic",
    "aws": "AWS Bedrock",
    "azure": "Microsoft Azure",
    "cerebras": "Cerebras",
    "cohere": "Cohere",
    "deepseek": "DeepSeek",
    "fireworks": "Fireworks",
    "google": "Google",
    "groq": "Groq",
    "mistral": "Mistral",
    "moonshotai": "Moonshot AI",
    "openai": "OpenAI",
    "openrouter": "OpenRouter",
    "perplexity": "Perplexity",
    "together": "Together AI",
    "x-ai": "xAI",
    "zai": "Z.AI",
}
"""Their ids in genai-prices, written out so that a list of books does not load its data."""
_ALL: tuple[Book, ...] = (
    HOLYSHEEP_BOOK,
    *(VendorBook(slug, name, slug) for slug, name in _VENDORS.items()),
)
_BOOKS: Mapping[str, Book] = {each.slug: each for each in _ALL}


def books() -> Mapping[str, Book]:
    """Every book by its slug, ours first."""
    return _BOOKS


def list_prices(registration: Registration, upstream_model: str) -> tuple[tuple[Price, ...], str]:
    """The dated prices of a preset's upstream model, oldest first, and where they are from."""
    if registration.price_list == HOLYSHEEP_BOOK.slug:
        return HOLYSHEEP_BOOK.prices_of(upstream_model), f"{HOLYSHEEP_BOOK.name}'s price book"
    prices = default_prices.list_prices(upstream_model, registration.price_list, registration.base_url)
    return prices, default_prices.SOURCE
