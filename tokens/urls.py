app_name = "tokens"
urlpatterns: list = []
api_urlpatterns: list = []
