"""Usage as providers report it, with a price, and what it costs to the nano-unit.

The shapes are those that the providers document, and so are the figures where the page has some.
Prices are near the published ones and stand here to be multiplied: what matters is that each kind
of token has its own. Every cost is written out by hand as tokens times nano-units a token
(a dollar a million tokens is 1,000 of them), and nothing of the relay is used to work it out.
"""

from dataclasses import dataclass, replace

from msgspec import Raw

from gateway.relay.catalog import Exchange, Price, Rates
from gateway.relay.records import Usage
from gateway.simulator.script import ToldUsage

M = 1_000_000
DOLLAR = 1000 * M
"""Of a price for a million tokens."""


@dataclass(frozen=True)
class Golden:
    name: str
    source: str
    """Where the shape is documented."""
    said: str
    """The usage object, word for word."""
    price: Price
    usage: Usage
    cost_nanos: int
    told: tuple[ToldUsage, ...] = ()
    """What a stream says and where; empty: the same once, on a last chunk without choices."""

    @property
    def on_a_stream(self) -> tuple[ToldUsage, ...]:
        return self.told or (ToldUsage(Raw(self.said.encode())),)


def said(text: str, chunk: int | None = None, place: str = "chunk") -> ToldUsage:
    return ToldUsage(Raw(text.encode()), chunk, place)  # type: ignore[arg-type]


def price(input: float, cached: float, output: float, **fields: object) -> Price:
    """In dollars a million tokens; rates beside these as `Rates` has them, the rest as `Price`."""
    names = Rates.__dataclass_fields__
    rates = {name: value for name, value in fields.items() if name in names}
    others = {name: value for name, value in fields.items() if name not in names}
    whole = [round(each * DOLLAR) for each in (input, cached, output)]
    return Price(7, 0, Rates(*whole, **rates), **others)  # type: ignore[arg-type]


def reported(prompt: int, answer: int, cached: int = 0, **parts: int) -> Usage:
    return Usage(prompt, answer, cached, "reported", **parts)


OPENAI = "https://platform.openai.com/docs/api-reference/chat/object"
OPENAI_CACHE = "https://platform.openai.com/docs/guides/prompt-caching"
OPENAI_REASONING = "https://platform.openai.com/docs/guides/reasoning"
OPENAI_AUDIO = "https://platform.openai.com/docs/guides/audio"
OPENAI_PREDICTED = "https://platform.openai.com/docs/guides/predicted-outputs"
AZURE = "https://learn.microsoft.com/azure/ai-services/openai/reference"
ANTHROPIC = "https://docs.anthropic.com/en/api/openai-sdk"
ANTHROPIC_CACHE = "https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching"
DEEPSEEK = "https://api-docs.deepseek.com/api/create-chat-completion"
GEMINI = "https://ai.google.dev/gemini-api/docs/openai"
XAI = "https://docs.x.ai/docs/guides/reasoning"
KIMI = "https://platform.moonshot.ai/docs/api/chat"
GROQ = "https://console.groq.com/docs/api-reference"
OPENROUTER = "https://openrouter.ai/docs/use-cases/usage-accounting"
QWEN = "https://www.alibabacloud.com/help/en/model-studio/context-cache"
MISTRAL = "https://docs.mistral.ai/api/"
PERPLEXITY = "https://docs.perplexity.ai/getting-started/pricing"
TOGETHER = "https://docs.together.ai/reference/chat-completions-1"
FIREWORKS = "https://docs.fireworks.ai/api-reference/post-chatcompletions"
VLLM = "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html"
SGLANG = "https://docs.sglang.ai/basic_usage/openai_api_completions.html"
OLLAMA = "https://github.com/ollama/ollama/blob/main/docs/openai.md"
COHERE = "https://docs.cohere.com/docs/compatibility-api"
ZHIPU = "https://docs.z.ai/guides/capabilities/cache"
MINIMAX = "https://platform.minimaxi.com/document/ChatCompletion"
CEREBRAS = "https://inference-docs.cerebras.ai/api-reference/chat-completions"
DEEPINFRA = "https://deepinfra.com/docs/openai_api"
HUGGING_FACE = "https://huggingface.co/docs/inference-providers/tasks/chat-completion"
LITELLM = "https://docs.litellm.ai/docs/completion/prompt_caching"

GPT_4O = price(2.5, 1.25, 10)
GPT_4O_MINI = price(0.15, 0.075, 0.6)
GPT_5 = price(1.25, 0.125, 10)
GPT_4O_AUDIO = price(2.5, 1.25, 10, audio_input_nanos=40 * DOLLAR, audio_output_nanos=80 * DOLLAR)
SONNET = price(3, 0.3, 15, cache_write_nanos=3750 * M)
SONNET_LONG = replace(
    SONNET,
    tiers=(Rates(6 * DOLLAR, 600 * M, 22_500 * M, cache_write_nanos=7500 * M, above_tokens=200_000),),
)
DEEPSEEK_CHAT = price(0.28, 0.028, 0.42)
FLASH = price(0.3, 0.03, 2.5)
PRO = replace(price(1.25, 0.31, 10), tiers=(Rates(2500 * M, 625 * M, 15 * DOLLAR, above_tokens=200_000),))
GROK = price(3, 0.75, 15)
GROK_LONG = replace(GROK, tiers=(Rates(6 * DOLLAR, 750 * M, 30 * DOLLAR, above_tokens=128_000),))
IN_YUAN = {"currency": "CNY", "exchange": Exchange(5, 36)}
"""7.2 yuan to the dollar of the ledger: one yuan is 5/36 of it."""
KIMI_K2 = price(4, 1, 16, **IN_YUAN)
SONAR = price(1, 1, 1, request_nanos=5 * M)
"""5 dollars for a thousand requests."""
DEEP_RESEARCH = price(2, 2, 8, reasoning_nanos=3 * DOLLAR)
QWEN_MAX = replace(
    price(6, 1.2, 24, cache_write_nanos=7500 * M, **IN_YUAN),
    tiers=(Rates(10 * DOLLAR, 2 * DOLLAR, 40 * DOLLAR, cache_write_nanos=12_500 * M, above_tokens=32_000),),
)
HOLY_SHEEP = price(2, 2, 8, currency="JPY")
"""The vendor's dollar figure, in yen, in a ledger of yen."""
SOLD_IN_YEN = price(2, 2, 8, currency="JPY", exchange=Exchange(1, 150))
LLAMA = price(0.59, 0.59, 0.79)
HALF_NANOS = price(0.0375, 0.0375, 0.15)

NO_AUDIO = '"audio_tokens":0'
NO_PREDICTION = '"accepted_prediction_tokens":0,"rejected_prediction_tokens":0'

TABLE = (
    Golden(
        "openai",
        OPENAI,
        '{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,'
        f'"prompt_tokens_details":{{"cached_tokens":0,{NO_AUDIO}}},'
        f'"completion_tokens_details":{{"reasoning_tokens":0,{NO_AUDIO},{NO_PREDICTION}}}}}',
        GPT_4O_MINI,
        reported(19, 10),
        19 * 150 + 10 * 600,
    ),
    Golden(
        "openai-cached",
        OPENAI_CACHE,
        '{"prompt_tokens":2006,"completion_tokens":300,"total_tokens":2306,'
        '"prompt_tokens_details":{"cached_tokens":1920},'
        f'"completion_tokens_details":{{"reasoning_tokens":0,{NO_PREDICTION}}}}}',
        GPT_4O,
        reported(2006, 300, 1920),
        86 * 2500 + 1920 * 1250 + 300 * 10_000,
    ),
    Golden(
        "openai-reasoning-inside-the-completion",
        OPENAI_REASONING,
        '{"prompt_tokens":75,"completion_tokens":1186,"total_tokens":1261,'
        f'"prompt_tokens_details":{{"cached_tokens":0,{NO_AUDIO}}},'
        f'"completion_tokens_details":{{"reasoning_tokens":1024,{NO_AUDIO},{NO_PREDICTION}}}}}',
        GPT_5,
        reported(75, 1186, reasoning_tokens=1024),
        75 * 1250 + 1186 * 10_000,
    ),
    Golden(
        "openai-audio-in-and-out",
        OPENAI_AUDIO,
        '{"prompt_tokens":134,"completion_tokens":197,"total_tokens":331,'
        '"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":110,"text_tokens":24,"image_tokens":0},'
        '"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":150,"text_tokens":47}}',
        GPT_4O_AUDIO,
        reported(134, 197, audio_input_tokens=110, audio_output_tokens=150),
        24 * 2500 + 110 * 40_000 + 47 * 10_000 + 150 * 80_000,
    ),
    Golden(
        "openai-predicted-output-rejected-in-part",
        OPENAI_PREDICTED,
        '{"prompt_tokens":236,"completion_tokens":88,"total_tokens":324,"completion_tokens_details":'
        '{"reasoning_tokens":0,"accepted_prediction_tokens":60,"rejected_prediction_tokens":12}}',
        GPT_4O,
        reported(236, 88),
        236 * 2500 + 88 * 10_000,
    ),
    Golden(
        "openai-explicit-zero",
        OPENAI,
        '{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}',
        GPT_4O,
        reported(0, 0),
        0 * 2500,
    ),
    Golden(
        "azure",
        AZURE,
        '{"completion_tokens":40,"prompt_tokens":56,"total_tokens":96,'
        '"completion_tokens_details":{"audio_tokens":null,"reasoning_tokens":0},'
        '"prompt_tokens_details":{"audio_tokens":null,"cached_tokens":null}}',
        GPT_4O,
        reported(56, 40),
        56 * 2500 + 40 * 10_000,
    ),
    Golden(
        "azure-cached-and-reasoning",
        AZURE,
        '{"completion_tokens":1518,"prompt_tokens":1566,"total_tokens":3084,'
        '"completion_tokens_details":{"audio_tokens":null,"reasoning_tokens":576},'
        '"prompt_tokens_details":{"audio_tokens":null,"cached_tokens":1408}}',
        GPT_5,
        reported(1566, 1518, 1408, reasoning_tokens=576),
        158 * 1250 + 1408 * 125 + 1518 * 10_000,
    ),
    Golden(
        "anthropic-openai-sdk",
        ANTHROPIC,
        '{"prompt_tokens":12,"completion_tokens":94,"total_tokens":106,'
        '"prompt_tokens_details":{},"completion_tokens_details":{}}',
        SONNET,
        reported(12, 94),
        12 * 3000 + 94 * 15_000,
    ),
    Golden(
        "anthropic-words-cache-written",
        ANTHROPIC_CACHE,
        '{"cache_creation_input_tokens":188086,"cache_read_input_tokens":0,"input_tokens":21,'
        '"output_tokens":393,"cache_creation":{"ephemeral_5m_input_tokens":188086}}',
        SONNET_LONG,
        reported(188_107, 393, cache_write_tokens=188_086),
        21 * 3000 + 188_086 * 3750 + 393 * 15_000,
    ),
    Golden(
        "anthropic-words-cache-read",
        ANTHROPIC_CACHE,
        '{"cache_creation_input_tokens":0,"cache_read_input_tokens":188086,"input_tokens":21,'
        '"output_tokens":393}',
        SONNET_LONG,
        reported(188_107, 393, 188_086),
        21 * 3000 + 188_086 * 300 + 393 * 15_000,
    ),
    Golden(
        "anthropic-words-the-cache-reaches-the-next-tier",
        ANTHROPIC_CACHE,
        '{"input_tokens":2021,"cache_creation_input_tokens":10000,"cache_read_input_tokens":188086,'
        '"output_tokens":500,"service_tier":"standard"}',
        SONNET_LONG,
        reported(200_107, 500, 188_086, cache_write_tokens=10_000),
        2021 * 6000 + 10_000 * 7500 + 188_086 * 600 + 500 * 22_500,
    ),
    Golden(
        "litellm-anthropic-words-beside-openais",
        LITELLM,
        '{"prompt_tokens":2100,"completion_tokens":50,"total_tokens":2150,'
        '"prompt_tokens_details":{"cached_tokens":1500},'
        '"cache_creation_input_tokens":500,"cache_read_input_tokens":1500}',
        SONNET,
        reported(2100, 50, 1500, cache_write_tokens=500),
        100 * 3000 + 500 * 3750 + 1500 * 300 + 50 * 15_000,
    ),
    Golden(
        "deepseek",
        DEEPSEEK,
        '{"completion_tokens":10,"prompt_tokens":164,"prompt_cache_hit_tokens":128,'
        '"prompt_cache_miss_tokens":36,"total_tokens":174}',
        DEEPSEEK_CHAT,
        reported(164, 10, 128),
        36 * 280 + 128 * 28 + 10 * 420,
        (
            said(
                '{"completion_tokens":10,"prompt_tokens":164,"prompt_cache_hit_tokens":128,'
                '"prompt_cache_miss_tokens":36,"total_tokens":174}',
                -1,
            ),
        ),
    ),
    Golden(
        "deepseek-reasoner",
        DEEPSEEK,
        '{"prompt_tokens":40,"completion_tokens":715,"total_tokens":755,'
        '"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":590},'
        '"prompt_cache_hit_tokens":0,"prompt_cache_miss_tokens":40}',
        DEEPSEEK_CHAT,
        reported(40, 715, reasoning_tokens=590),
        40 * 280 + 715 * 420,
    ),
    Golden(
        "gemini-thoughts-in-the-total-alone",
        GEMINI,
        '{"completion_tokens":151,"prompt_tokens":20,"total_tokens":553}',
        FLASH,
        reported(20, 533, reasoning_tokens=382),
        20 * 300 + 533 * 2500,
    ),
    Golden(
        "gemini-thoughts-named-beside-an-empty-answer",
        GEMINI,
        '{"completion_tokens":0,"total_tokens":81,"prompt_tokens":21,'
        '"completion_tokens_details":{"reasoning_tokens":60}}',
        FLASH,
        reported(21, 60, reasoning_tokens=60),
        21 * 300 + 60 * 2500,
    ),
    Golden(
        "gemini-without-thoughts",
        GEMINI,
        '{"completion_tokens":9,"prompt_tokens":12,"total_tokens":21}',
        FLASH,
        reported(12, 9),
        12 * 300 + 9 * 2500,
    ),
    Golden(
        "gemini-long-prompt-cached",
        GEMINI,
        '{"completion_tokens":1000,"prompt_tokens":250000,"total_tokens":251500,'
        '"prompt_tokens_details":{"cached_tokens":200000},'
        '"completion_tokens_details":{"reasoning_tokens":500}}',
        PRO,
        reported(250_000, 1500, 200_000, reasoning_tokens=500),
        50_000 * 2500 + 200_000 * 625 + 1500 * 15_000,
    ),
    Golden(
        "xai-reasoning-beside-the-completion",
        XAI,
        '{"prompt_tokens":37,"completion_tokens":530,"total_tokens":800,'
        '"prompt_tokens_details":{"text_tokens":37,"audio_tokens":0,"image_tokens":0,"cached_tokens":8},'
        '"completion_tokens_details":{"reasoning_tokens":233,"audio_tokens":0,'
        '"accepted_prediction_tokens":0,"rejected_prediction_tokens":0},"num_sources_used":0}',
        GROK,
        reported(37, 763, 8, reasoning_tokens=233),
        29 * 3000 + 8 * 750 + 763 * 15_000,
    ),
    Golden(
        "xai-long-prompt",
        XAI,
        '{"prompt_tokens":130000,"completion_tokens":100,"total_tokens":130400,'
        '"prompt_tokens_details":{"text_tokens":130000,"cached_tokens":1000},'
        '"completion_tokens_details":{"reasoning_tokens":300}}',
        GROK_LONG,
        reported(130_000, 400, 1000, reasoning_tokens=300),
        129_000 * 6000 + 1000 * 750 + 400 * 30_000,
    ),
    Golden(
        "kimi-in-yuan",
        KIMI,
        '{"prompt_tokens":190,"completion_tokens":21,"total_tokens":211,"cached_tokens":10}',
        KIMI_K2,
        reported(190, 21, 10),
        # 180 x 4000 + 10 x 1000 + 21 x 16,000 = 1,066,000 nano-yuan; x 5/36 = 148,055.55...
        148_056,
    ),
    Golden(
        "kimi-stream-in-a-choice-and-again-at-the-end",
        KIMI,
        '{"prompt_tokens":19,"completion_tokens":13,"total_tokens":32}',
        KIMI_K2,
        reported(19, 13),
        # 19 x 4000 + 13 x 16,000 = 284,000 nano-yuan; x 5/36 = 39,444.44...
        39_444,
        (
            said('{"prompt_tokens":19,"completion_tokens":13,"total_tokens":32}', -1, "choice"),
            said('{"prompt_tokens":19,"completion_tokens":13,"total_tokens":32}'),
        ),
    ),
    Golden(
        "kimi-stream-in-a-choice-only",
        KIMI,
        '{"prompt_tokens":19,"completion_tokens":13,"total_tokens":32,"cached_tokens":19}',
        KIMI_K2,
        reported(19, 13, 19),
        # 19 x 1000 + 13 x 16,000 = 227,000 nano-yuan; x 5/36 = 31,527.77...
        31_528,
        (
            said(
                '{"prompt_tokens":19,"completion_tokens":13,"total_tokens":32,"cached_tokens":19}',
                -1,
                "choice",
            ),
        ),
    ),
    Golden(
        "groq",
        GROQ,
        '{"queue_time":0.037493756,"prompt_tokens":18,"prompt_time":0.000680594,"completion_tokens":556,'
        '"completion_time":0.463333333,"total_tokens":574,"total_time":0.464013927}',
        LLAMA,
        reported(18, 556),
        18 * 590 + 556 * 790,
    ),
    Golden(
        "groq-stream-in-its-own-object",
        GROQ,
        '{"queue_time":0.061348671,"prompt_tokens":18,"prompt_time":0.000211569,"completion_tokens":439,'
        '"completion_time":0.798181818,"total_tokens":457,"total_time":0.798393387}',
        LLAMA,
        reported(18, 439),
        18 * 590 + 439 * 790,
        (
            said(
                '{"queue_time":0.061348671,"prompt_tokens":18,"prompt_time":0.000211569,'
                '"completion_tokens":439,"completion_time":0.798181818,"total_tokens":457,'
                '"total_time":0.798393387}',
                -1,
                "x_groq",
            ),
        ),
    ),
    Golden(
        "groq-cached",
        GROQ,
        '{"queue_time":0.02,"prompt_tokens":4641,"prompt_time":0.009,"completion_tokens":1817,'
        '"completion_time":5.57,"total_tokens":6458,"total_time":5.58,'
        '"prompt_tokens_details":{"cached_tokens":4608}}',
        price(1, 0.5, 3),
        reported(4641, 1817, 4608),
        33 * 1000 + 4608 * 500 + 1817 * 3000,
    ),
    Golden(
        "openrouter-cache-written",
        OPENROUTER,
        '{"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":0},"cost":0.95,'
        '"cost_details":{"upstream_inference_cost":19},"prompt_tokens":194,"prompt_tokens_details":'
        '{"cached_tokens":0,"cache_write_tokens":100,"audio_tokens":0},"total_tokens":196}',
        SONNET,
        reported(194, 2, cache_write_tokens=100),
        94 * 3000 + 100 * 3750 + 2 * 15_000,
    ),
    Golden(
        "openrouter-byok-null-details",
        OPENROUTER,
        '{"prompt_tokens":10339,"completion_tokens":60,"total_tokens":10399,"cost":0.0004,"is_byok":false,'
        '"prompt_tokens_details":{"cached_tokens":10318,"cache_write_tokens":null},'
        '"cost_details":{"upstream_inference_cost":null},"completion_tokens_details":null}',
        SONNET,
        reported(10_339, 60, 10_318),
        21 * 3000 + 10_318 * 300 + 60 * 15_000,
    ),
    Golden(
        "qwen-explicit-cache-in-yuan",
        QWEN,
        '{"completion_tokens":117,"prompt_tokens":1739,"total_tokens":1856,"prompt_tokens_details":'
        '{"cache_creation":{"ephemeral_5m_input_tokens":1721},"cache_creation_input_tokens":1721,'
        '"cache_type":"ephemeral","cached_tokens":0}}',
        QWEN_MAX,
        reported(1739, 117, cache_write_tokens=1721),
        # 18 x 6000 + 1721 x 7500 + 117 x 24,000 = 15,823,500 nano-yuan; x 5/36 = 2,197,708.33...
        2_197_708,
    ),
    Golden(
        "qwen-cache-hit-in-the-next-tier",
        QWEN,
        '{"prompt_tokens":32019,"completion_tokens":104,"total_tokens":32123,'
        '"prompt_tokens_details":{"cached_tokens":2048}}',
        QWEN_MAX,
        reported(32_019, 104, 2048),
        # 29,971 x 10,000 + 2048 x 2000 + 104 x 40,000 = 307,966,000 nano-yuan; x 5/36 = 42,773,055.55...
        42_773_056,
    ),
    Golden(
        "mistral",
        MISTRAL,
        '{"prompt_tokens":16,"completion_tokens":34,"total_tokens":50,"prompt_audio_seconds":null}',
        price(2, 2, 6),
        reported(16, 34),
        16 * 2000 + 34 * 6000,
    ),
    Golden(
        "mistral-cached",
        MISTRAL,
        '{"prompt_tokens":1616,"completion_tokens":34,"total_tokens":1650,"num_cached_tokens":1600}',
        price(2, 0.2, 6),
        reported(1616, 34, 1600),
        16 * 2000 + 1600 * 200 + 34 * 6000,
    ),
    Golden(
        "mistral-a-recording-billed-by-time",
        MISTRAL,
        '{"prompt_audio_seconds":5,"prompt_tokens":5,"total_tokens":404,"completion_tokens":24}',
        price(0.1, 0.1, 0.3),
        reported(5, 24),
        5 * 100 + 24 * 300,
    ),
    Golden(
        "perplexity-with-a-fee-for-the-request",
        PERPLEXITY,
        '{"prompt_tokens":14,"completion_tokens":239,"total_tokens":253,"search_context_size":"low",'
        '"cost":{"input_tokens_cost":0.0,"output_tokens_cost":0.0,"request_cost":0.005,"total_cost":0.005}}',
        SONAR,
        reported(14, 239),
        14 * 1000 + 239 * 1000 + 5_000_000,
    ),
    Golden(
        "perplexity-deep-research",
        PERPLEXITY,
        '{"prompt_tokens":33,"completion_tokens":11395,"total_tokens":11428,"citation_tokens":19028,'
        '"num_search_queries":21,"reasoning_tokens":193947}',
        DEEP_RESEARCH,
        reported(19_061, 205_342, reasoning_tokens=193_947),
        33 * 2000 + 19_028 * 2000 + 11_395 * 8000 + 193_947 * 3000,
    ),
    Golden(
        "together-on-the-last-choice",
        TOGETHER,
        '{"prompt_tokens":31,"completion_tokens":47,"total_tokens":78,"cached_tokens":0}',
        price(0.88, 0.88, 0.88),
        reported(31, 47),
        31 * 880 + 47 * 880,
        (said('{"prompt_tokens":31,"completion_tokens":47,"total_tokens":78,"cached_tokens":0}', -1),),
    ),
    Golden(
        "fireworks-cached-on-the-last-choice",
        FIREWORKS,
        '{"prompt_tokens":1040,"total_tokens":1052,"completion_tokens":12,'
        '"prompt_tokens_details":{"cached_tokens":1024}}',
        price(0.9, 0.45, 0.9),
        reported(1040, 12, 1024),
        16 * 900 + 1024 * 450 + 12 * 900,
        (
            said(
                '{"prompt_tokens":1040,"total_tokens":1052,"completion_tokens":12,'
                '"prompt_tokens_details":{"cached_tokens":1024}}',
                -1,
            ),
        ),
    ),
    Golden(
        "vllm-on-every-chunk",
        VLLM,
        '{"prompt_tokens":25,"total_tokens":28,"completion_tokens":3,"prompt_tokens_details":null}',
        price(0.1, 0.1, 0.2),
        reported(25, 3),
        25 * 100 + 3 * 200,
        (
            said('{"prompt_tokens":25,"total_tokens":25,"completion_tokens":0}', 0),
            said('{"prompt_tokens":25,"total_tokens":26,"completion_tokens":1}', 1),
            said('{"prompt_tokens":25,"total_tokens":28,"completion_tokens":3}', -1),
            said('{"prompt_tokens":25,"total_tokens":28,"completion_tokens":3,"prompt_tokens_details":null}'),
        ),
    ),
    Golden(
        "vllm-on-every-chunk-and-lower-at-the-end",
        VLLM,
        '{"prompt_tokens":25,"total_tokens":28,"completion_tokens":3}',
        price(0.1, 0.1, 0.2),
        reported(25, 3),
        25 * 100 + 3 * 200,
        (
            said('{"prompt_tokens":25,"total_tokens":30,"completion_tokens":5}', 0),
            said('{"prompt_tokens":25,"total_tokens":28,"completion_tokens":3}'),
        ),
    ),
    Golden(
        "sglang-reasoning-beside-the-details",
        SGLANG,
        '{"prompt_tokens":17,"total_tokens":417,"completion_tokens":400,"prompt_tokens_details":null,'
        '"reasoning_tokens":350}',
        price(0.1, 0.1, 0.2, reasoning_nanos=100 * M),
        reported(17, 400, reasoning_tokens=350),
        17 * 100 + 50 * 200 + 350 * 100,
    ),
    Golden(
        "ollama",
        OLLAMA,
        '{"prompt_tokens":26,"completion_tokens":298,"total_tokens":324}',
        price(0, 0, 0),
        reported(26, 298),
        26 * 0 + 298 * 0,
    ),
    Golden(
        "cohere-openai-sdk",
        COHERE,
        '{"completion_tokens":38,"prompt_tokens":63,"total_tokens":101}',
        price(2.5, 2.5, 10),
        reported(63, 38),
        63 * 2500 + 38 * 10_000,
    ),
    Golden(
        "cohere-billed-in-floats",
        COHERE,
        '{"completion_tokens":38.0,"prompt_tokens":63.0,"total_tokens":101.0}',
        price(2.5, 2.5, 10),
        reported(63, 38),
        63 * 2500 + 38 * 10_000,
    ),
    Golden(
        "zhipu-on-the-last-choice",
        ZHIPU,
        '{"prompt_tokens":1200,"completion_tokens":300,"total_tokens":1500,'
        '"prompt_tokens_details":{"cached_tokens":800}}',
        price(0.6, 0.11, 2.2),
        reported(1200, 300, 800),
        400 * 600 + 800 * 110 + 300 * 2200,
        (
            said(
                '{"prompt_tokens":1200,"completion_tokens":300,"total_tokens":1500,'
                '"prompt_tokens_details":{"cached_tokens":800}}',
                -1,
            ),
        ),
    ),
    Golden(
        "minimax",
        MINIMAX,
        '{"total_tokens":249,"total_characters":0,"prompt_tokens":26,"completion_tokens":223,'
        '"completion_tokens_details":{"reasoning_tokens":214}}',
        price(0.3, 0.03, 1.2),
        reported(26, 223, reasoning_tokens=214),
        26 * 300 + 223 * 1200,
    ),
    Golden(
        "cerebras",
        CEREBRAS,
        '{"prompt_tokens":24,"completion_tokens":51,"total_tokens":75,'
        '"prompt_tokens_details":{"cached_tokens":0},'
        '"completion_tokens_details":{"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}',
        price(0.85, 0.85, 1.2),
        reported(24, 51),
        24 * 850 + 51 * 1200,
    ),
    Golden(
        "deepinfra",
        DEEPINFRA,
        '{"prompt_tokens":11,"total_tokens":36,"completion_tokens":25,"estimated_cost":0.0000018}',
        price(0.03, 0.03, 0.05),
        reported(11, 25),
        11 * 30 + 25 * 50,
    ),
    Golden(
        "hugging-face-null-details",
        HUGGING_FACE,
        '{"prompt_tokens":17,"completion_tokens":26,"total_tokens":43,'
        '"prompt_tokens_details":null,"completion_tokens_details":null}',
        price(0.2, 0.2, 0.6),
        reported(17, 26),
        17 * 200 + 26 * 600,
    ),
    Golden(
        "holy-sheep-in-a-ledger-of-yen",
        OPENAI,
        '{"prompt_tokens":1000000,"completion_tokens":50000,"total_tokens":1050000}',
        HOLY_SHEEP,
        reported(1_000_000, 50_000),
        1_000_000 * 2000 + 50_000 * 8000,
    ),
    Golden(
        "sold-in-yen-in-a-ledger-of-dollars",
        OPENAI,
        '{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}',
        SOLD_IN_YEN,
        reported(9, 2),
        # 9 x 2000 + 2 x 8000 = 34,000 nano-yen; / 150 = 226.66...
        227,
    ),
    Golden(
        "a-part-larger-than-its-whole",
        OPENAI,
        '{"prompt_tokens":100,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":150}}',
        GPT_4O,
        reported(100, 2, 150),
        0 * 2500 + 100 * 1250 + 2 * 10_000,
    ),
    Golden(
        "half-a-nano-is-rounded-up",
        OPENAI,
        '{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}',
        HALF_NANOS,
        reported(1, 1),
        # 37.5 + 150 nano-dollars
        188,
    ),
)
