from django.urls import path

from accounts import views

urlpatterns = [
    path("", views.keys, name="keys"),
    path("new/", views.new_key, name="new_key"),
    path("<int:key_id>/revoke/", views.revoke_key, name="revoke_key"),
]
