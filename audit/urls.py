from django.urls import path

from audit import api, views

app_name = "audit"
urlpatterns = [
    path("audit/", views.event_list, name="list"),
    path("audit/export/", views.export, name="export"),
    path("audit/verify/", views.verify, name="verify"),
]
api_urlpatterns = [
    path("audit", api.Events.as_view()),
    path("audit/export", api.Export.as_view()),
    path("audit/verify", api.Verify.as_view()),
]
