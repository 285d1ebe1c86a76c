"""People and their second factors."""

import allauth.account.admin
import allauth.mfa.admin
import allauth.usersessions.admin  # noqa: F401  (they register their models; ours take their place below)
from allauth.account.decorators import secure_admin_login
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from accounts import audit
from accounts.admin.common import Audited, NotedAdmin
from accounts.models import User
from accounts.services import close_playground, note_rights

admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]
for _model in (EmailAddress, Authenticator, Group, UserSession):
    admin.site.unregister(_model)


@admin.register(User)
class PersonAdmin(NotedAdmin, UserAdmin):  # type: ignore[type-arg]
    """People, known by their e-mail address."""

    made = "created"
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    ordering = ["email"]
    list_display = ["email", "is_active", "is_superuser", "last_login"]
    list_filter = ["is_active", "is_superuser"]
    search_fields = ["email", "first_name", "last_name"]
    filter_horizontal = ()
    readonly_fields = ["last_login", "date_joined"]
    fieldsets = [
        (None, {"fields": ["email", "password", "first_name", "last_name"]}),
        ("Rights", {"fields": ["is_active", "is_staff", "is_superuser"]}),
        ("Moments", {"fields": ["last_login", "date_joined"]}),
    ]
    add_fieldsets = [(None, {"classes": ["wide"], "fields": ["email", "password1", "password2"]})]

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        """Its form saves the person by itself."""
        with transaction.atomic():
            answer = super().user_change_password(request, id, form_url)
            if request.method == "POST" and answer.status_code == 302:
                person = User.objects.get(pk=id)
                audit.record("user.password_set", person)
                close_playground(person, why=f"{person.email} has a new password")
        return answer

    def note(self, obj: models.Model) -> None:
        super().note(obj)
        assert isinstance(obj, User)
        note_rights(obj.pk)


@admin.register(Authenticator)
class AuthenticatorAdmin(Audited):
    """Who has a second factor. An administrator may take a lost one away; its secret is never shown."""

    list_display = ["user", "type", "created_at", "last_used_at"]
    list_filter = ["type"]
    search_fields = ["user__email"]
    fields = ["user", "type", "created_at", "last_used_at"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Authenticator | None = None) -> bool:
        return False
