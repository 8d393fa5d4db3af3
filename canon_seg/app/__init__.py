"""The web page of demo/app.py: what it computes and draws. Only page.py needs Gradio."""
