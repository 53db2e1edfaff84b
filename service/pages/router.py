"""All routes of the page."""

from fastapi import APIRouter

from autoprune.service.pages import routes_index, routes_jobs, static_files

router = APIRouter()
for routes in (routes_index, routes_jobs, static_files):
    router.include_router(routes.router)
