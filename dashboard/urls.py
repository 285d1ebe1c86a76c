"""Every page. The relay's `/v1/` and the sockets are told apart before Django, in `asgi.py`."""

from django.contrib import admin
from django.urls import include, path

from dashboard import views
from dashboard.api import api

urlpatterns = [
    path("", views.live, name="live"),
    path("keys/", include("accounts.urls.keys")),
    path("teams/", include("accounts.urls.teams")),
    path("account/", include("accounts.urls.account")),
    path("", include("accounts.urls.others")),
    path("accounts/", include("allauth.urls")),
    path("api/", api.urls),
    path("admin/", admin.site.urls),
]
