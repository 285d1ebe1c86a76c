from django.urls import path

from accounts.views import keys, limits

urlpatterns = [
    path("", keys.keys, name="keys"),
    path("new/", keys.new_key, name="new_key"),
    path("<int:key_id>/", keys.key, name="key"),
    path("<int:key_id>/settings/", keys.change_key, name="change_key"),
    path("<int:key_id>/rotate/", keys.rotate_key, name="rotate_key"),
    path("<int:key_id>/secrets/<int:secret_id>/extend/", keys.extend_overlap, name="extend_overlap"),
    path("<int:key_id>/secrets/<int:secret_id>/end/", keys.end_overlap, name="end_overlap"),
    path("<int:key_id>/rate-limit/", limits.key_rate_limit, name="key_rate_limit"),
    path("<int:key_id>/quota/", limits.key_quota, name="key_quota"),
    path("<int:key_id>/revoke/", keys.revoke_key, name="revoke_key"),
]
