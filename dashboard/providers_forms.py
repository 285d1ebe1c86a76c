"""Forms of providers and of their credentials. `gateway.services` decides what may be written."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from gateway import probing
from gateway.inputs import (
    NAME_LENGTH,
    Unusable,
    clean_base_url,
    clean_certificates,
    clean_credential,
    clean_name,
)
from gateway.models import Provider
from gateway.presets import CHOICES, RESOURCE, Choice
from gateway.services import clean_variable

PLAIN = {"autocomplete": "off", "spellcheck": "false"}
_RESOURCE_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9-]{0,62}")
_SLUG = re.compile(r"[-a-zA-Z0-9_]+")

ABOUT: Mapping[str, Any] = {
    "azure": gettext_lazy(
        "Its OpenAI-compatible address needs no api-version. The model names are those of your deployments: "
        "Azure lists every model that it has, so type the names of your deployments in after the provider is "
        "added."
    ),
    "vllm": gettext_lazy(
        "Change the address to where it listens. A credential is needed where it was given one."
    ),
    "ollama": gettext_lazy("Change the address to where it listens. It asks for no credential."),
    "openrouter": gettext_lazy("One credential for the models of many vendors, several hundred of them."),
    "openai-compatible": gettext_lazy(
        "Any server with OpenAI's /chat/completions, at the address that you give."
    ),
}
"""What else there is to say of a preset."""


def text(
    label: Any, help_text: Any = "", *, required: bool = True, most: int = NAME_LENGTH
) -> forms.CharField:
    return forms.CharField(
        label=label,
        help_text=help_text,
        required=required,
        max_length=most,
        widget=forms.TextInput(attrs=PLAIN),
    )


def usable(clean: Any, raw: str, *what: str) -> Any:
    """The clean value, or our sentence as the form's."""
    try:
        return clean(raw, *what)
    except Unusable as why:
        raise ValidationError(str(why)) from None


class CredentialFields(forms.Form):
    """Where the credential is: typed in and kept, in the environment, or nowhere. It is never shown again."""

    place = forms.ChoiceField(
        label=gettext_lazy("Credential"),
        choices=[
            ("kept", gettext_lazy("Keep it here, encrypted")),
            ("environment", gettext_lazy("Use an environment variable")),
            ("none", gettext_lazy("Send none")),
        ],
        initial="kept",
        widget=forms.RadioSelect,
    )
    secret = forms.CharField(
        label=gettext_lazy("The credential itself"),
        required=False,
        strip=False,
        max_length=4096,
        widget=forms.PasswordInput(attrs={**PLAIN, "autocomplete": "new-password"}),
        help_text=gettext_lazy("Where it is kept here. It goes in and is never shown again, to nobody."),
    )
    env_var = text(
        gettext_lazy("Or the variable's name"),
        gettext_lazy(
            "Where it is in the environment: its name ends in _API_KEY, and the serving process reads it."
        ),
        required=False,
        most=100,
    )

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        place = self.cleaned_data.get("place")
        if place == "kept":
            self._clean_field("secret", lambda raw: clean_credential(raw, _("The credential")))
        if place == "environment":
            self._clean_field("env_var", clean_variable)
        return cleaned

    def _clean_field(self, name: str, clean: Any) -> None:
        try:
            self.cleaned_data[name] = clean(self.cleaned_data.get(name, ""))
        except Unusable as why:
            self.add_error(name, str(why))


class NewProvider(CredentialFields):
    """A provider by a preset."""

    field_order = ("name", "slug", "resource", "base_url", "place", "secret", "env_var", "usual")

    name = text(gettext_lazy("Name"), gettext_lazy("As people read it."), most=100)
    slug = text(
        gettext_lazy("Short name"),
        gettext_lazy("In targets, headers and logs: letters, digits, hyphens and underscores. It stays."),
        most=50,
    )
    resource = text(
        gettext_lazy("Resource name"),
        gettext_lazy("The first part of its address: RESOURCE.openai.azure.com."),
        most=63,
    )
    base_url = text(
        gettext_lazy("Base URL"),
        gettext_lazy("With the version, without the endpoint: https://api.openai.com/v1"),
    )
    usual = forms.BooleanField(required=False, initial=True)

    def __init__(self, choice: Choice, data: Any = None) -> None:
        first = {
            "name": choice.name if choice.base_url else "",
            "slug": choice.slug if choice.base_url else "",
            "base_url": choice.base_url,
            "env_var": choice.env_var,
            "place": "kept" if choice.needs_credential else "none",
        }
        super().__init__(data, initial=first)
        self.choice = choice
        del self.fields["base_url" if RESOURCE in choice.base_url else "resource"]
        if choice.needs_credential:
            self.fields["place"].choices = self.fields["place"].choices[:2]  # type: ignore[attr-defined]
        if choice.routes:
            names = ", ".join(each.model_name for each in choice.routes)
            self.fields["usual"].label = _("Offer its usual models at once: {names}").format(names=names)
        else:
            del self.fields["usual"]

    def clean_name(self) -> Any:
        return usable(clean_name, self.cleaned_data["name"], _("The name"))

    def clean_slug(self) -> str:
        slug: str = self.cleaned_data["slug"]
        if not _SLUG.fullmatch(slug):
            raise ValidationError(_("Only letters, digits, hyphens and underscores."))
        if Provider.objects.filter(slug=slug).exists():
            raise ValidationError(_("There is a provider {slug} already.").format(slug=slug))
        return slug

    def clean_resource(self) -> str:
        name: str = self.cleaned_data["resource"]
        if not _RESOURCE_NAME.fullmatch(name):
            raise ValidationError(_("Only the resource's name: letters, digits and hyphens."))
        return name

    def clean_base_url(self) -> Any:
        return usable(clean_base_url, self.cleaned_data["base_url"], _("The base URL"))

    def address(self) -> str:
        """The base URL, with the resource's name in it where one was asked for."""
        given: str | None = self.cleaned_data.get("base_url")
        return given or self.choice.base_url.replace(RESOURCE, self.cleaned_data["resource"])


class ProviderSettings(forms.Form):
    """A provider's name, address and certificates."""

    name = text(gettext_lazy("Name"), most=100)
    base_url = text(
        gettext_lazy("Base URL"),
        gettext_lazy("A credential that is kept here does not go along to another host: replace it first."),
    )
    ca_pem = forms.CharField(
        label=gettext_lazy("Certificates"),
        required=False,
        widget=forms.Textarea(attrs={**PLAIN, "rows": 6}),
        help_text=gettext_lazy(
            "In PEM: who may sign the provider's certificate, beside those that the system trusts."
        ),
    )

    def clean_ca_pem(self) -> Any:
        return usable(clean_certificates, self.cleaned_data["ca_pem"])


class OneCall(forms.Form):
    """Which model name to call."""

    model_name = text(gettext_lazy("Model name of a route, or what the provider calls it"))

    def clean_model_name(self) -> Any:
        return usable(clean_name, self.cleaned_data["model_name"], _("The model name"))


class PickByHand(forms.Form):
    """A model that the provider does not list."""

    upstream_model = text(gettext_lazy("Upstream model"), gettext_lazy("What the provider calls it."))
    model_name = text(
        gettext_lazy("Model name"), gettext_lazy("What clients ask for. Empty: the same."), required=False
    )

    def clean_upstream_model(self) -> Any:
        return usable(clean_name, self.cleaned_data["upstream_model"], _("The upstream model"))


def choice_called(slug: str) -> Choice | None:
    return next((each for each in CHOICES if each.slug == slug), None)


def first_model_name(names: Sequence[str]) -> str:
    """To test with: the usual small one, or else the first of the provider's own."""
    return probing.MODEL_NAME if probing.MODEL_NAME in names or not names else names[0]
