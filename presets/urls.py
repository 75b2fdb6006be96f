from django.urls import path

from presets import views

app_name = "presets"
urlpatterns = [
    path("presets/", views.catalogue, name="list"),
    path("presets/pick/", views.pick, name="pick"),
    path("presets/<slug:name>/", views.preview, name="preview"),
]
api_urlpatterns: list = []
