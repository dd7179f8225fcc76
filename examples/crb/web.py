import urllib.request

import segue


@segue.step
def get(url: str) -> str:  # sync: runs on a thread; recorded whole: fetched once, whatever crashes
    with urllib.request.urlopen(url) as page:
        text: str = page.read().decode()
        return text
