"""Compute and draw what the page in the browser shows. Only page.py needs Gradio."""
