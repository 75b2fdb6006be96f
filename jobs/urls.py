from django.urls import path

from jobs import agent_api, api

app_name = "jobs"
urlpatterns: list = []
api_urlpatterns = [
    path("jobs", api.JobList.as_view()),
    path("jobs/batches", api.BatchList.as_view()),
    path("jobs/<uuid:job_id>", api.JobDetail.as_view()),
    path("jobs/<uuid:job_id>/cancel", api.JobCancel.as_view()),
    path("jobs/<uuid:job_id>/retry", api.JobRetry.as_view()),
    path("jobs/<uuid:job_id>/output", api.JobOutput.as_view()),
    path("jobs/<uuid:job_id>/start", agent_api.Start.as_view()),
    path("jobs/<uuid:job_id>/complete", agent_api.Complete.as_view()),
    path("agent/keys", agent_api.Keys.as_view()),
]
