from django.urls import path

from audit import api

app_name = "audit"
urlpatterns: list = []
api_urlpatterns = [path("audit", api.EventList.as_view())]
