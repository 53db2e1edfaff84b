"""The service's page for a browser: rendered here, updated by htmx, drawn by plotly.js; works offline."""
