"""Text that would be script in a page that lets it, and what tells whether a page did.

Each text calls `hbx` with its own number or leaves an element that no page of ours has. `Detector` counts both, and what the
browser reports of the Content-Security-Policy.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

from playwright.sync_api import BrowserContext, Dialog, Page

# Where markup is text: what each context makes of a hostile text that nobody escaped.
CONTEXTS: dict[str, Callable[[str], str]] = {
    "text": "<p>{}</p>".format,
    "double": '<input value="{}">'.format,
    "single": "<input value='{}'>".format,
    "bare": "<input value={}>".format,
    "href": '<a href="{}">x</a>'.format,
    "title": "<title>{}</title>".format,
    "area": "<textarea>{}</textarea>".format,
    "select": "<select><option>{}</option></select>".format,
    "style": "<style>{}</style>".format,
    "comment": "<!-- {} -->".format,
    "json": '<script type="application/json">"{}"</script>'.format,
    "script": '<script>let a = "{}";</script>'.format,
    "apostrophe": "<script>let a = '{}';</script>".format,
    "backtick": "<script>let a = `{}`;</script>".format,
    "unescaped": lambda text: f"<p>{html.unescape(text)}</p>",
    "percent": lambda text: f"<p>{unquote(text)}</p>",
    "decoded": lambda text: "<p>" + text.encode().decode("unicode_escape") + "</p>",
}
# By context; `@` is the number of the text. At most 63 characters, so that each fits every field.
_TEXTS = {
    "text": """
        <script>hbx(@)</script>
        <ScRiPt >hbx(@)</sCrIpT >
        <script src=/hbx/@.js></script>
        <script type=module>hbx(@)</script>
        <img src=x onerror=hbx(@)>
        <img/src='x'/onerror=hbx(@)>
        <img src=x onerror=&#104;bx(@)>
        <img src=x onerror="alert(@)">
        <img src=/hbx/@.png>
        <svg onload=hbx(@)>
        <svg/onload=hbx(@)>
        <svg onload=confirm(@)>
        <svg onload=prompt(@)>
        <svg><script>hbx(@)</script></svg>
        <svg><script href=data:,hbx(@) /></svg>
        <svg><animate onbegin=hbx(@) attributeName=x dur=1s>
        <svg><a xlink:href=javascript:hbx(@)><text>x</text></a></svg>
        <math><mtext><img src=x onerror=hbx(@)></mtext></math>
        <body onload=hbx(@)>
        <iframe src="javascript:parent.hbx(@)"></iframe>
        <iframe srcdoc="<script>parent.hbx(@)</script>"></iframe>
        <object data="javascript:hbx(@)"></object>
        <embed src="javascript:hbx(@)">
        <a href="javascript:hbx(@)">go</a>
        <a href="java&#115;cript:hbx(@)">go</a>
        <a href="jav&Tab;ascript:hbx(@)">go</a>
        <form action="javascript:hbx(@)"><button>go</button></form>
        <form><button formaction=javascript:hbx(@)>go</button></form>
        <form id=hbx-@ action=//hbx.example><input name=code></form>
        <input autofocus onfocus=hbx(@)>
        <details open ontoggle=hbx(@)>x</details>
        <video><source onerror=hbx(@)></video>
        <audio src=x onerror=hbx(@)></audio>
        <marquee onstart=hbx(@)>x</marquee>
        <style>@import "/hbx/@.css";</style>
        <style onload=hbx(@)></style>
        <link rel=stylesheet href=/hbx/@.css>
        <link rel=stylesheet href=data:, onload=hbx(@)>
        <meta http-equiv=refresh content="999;url=/hbx/@">
        <base href=//hbx.example/@/>
        <table background="javascript:hbx(@)"><tr><td>x</table>
        <div style=position:fixed;inset:0>@</div>
        <h1 id=hbx-@>You are signed out</h1>
        <p hx-get=/hbx/@ hx-trigger=load>x</p>
        <x-hbx-@ onclick=hbx(@)>x</x-hbx-@>
        <scr<script>ipt>hbx(@)</scr</script>ipt>
        <!--><img src=x onerror=hbx(@)>-->
        <![CDATA[><img src=x onerror=hbx(@)>]]>
        <noscript><p title="</noscript><img src=x onerror=hbx(@)>">
        </p></div></main><svg onload=hbx(@)>
    """,
    "double": """
        "><script>hbx(@)</script>
        "><img src=x onerror=hbx(@)>
        " onfocus=hbx(@) autofocus x="
        "onfocus="hbx(@)"autofocus="
        "style="position:fixed;inset:0"x="@
    """,
    "single": """
        '><script>hbx(@)</script>
        '><img src=x onerror=hbx(@)>
        ' onfocus=hbx(@) autofocus x='
    """,
    "bare": """
        x onfocus=hbx(@) autofocus
        ><svg/onload=hbx(@)>
    """,
    "href": """
        javascript:hbx(@)
        JaVaScRiPt:hbx(@)//
        data:text/html,<script>hbx(@)</script>
    """,
    "title": "</title><script>hbx(@)</script>",
    "area": "</textarea><script>hbx(@)</script>",
    "select": "</option></select><svg onload=hbx(@)>",
    "style": "</style><script>hbx(@)</script>",
    "comment": "--><script>hbx(@)</script>",
    "json": "</script><script>hbx(@)</script>",
    "script": """
        ";hbx(@);//
        </script><svg onload=hbx(@)>
    """,
    "apostrophe": "';hbx(@);//",
    "backtick": "${hbx(@)}",
    "unescaped": "&lt;img src=x onerror=hbx(@)&gt;",
    "percent": "%3Cscript%3Ehbx(@)%3C/script%3E",
    "decoded": r"\u003cimg src=x onerror=hbx(@)\u003e",
}


@dataclass(frozen=True)
class Hostile:
    """One text, and a document that would run it or show its elements."""

    number: int
    context: str
    text: str

    @property
    def document(self) -> str:
        return f"<!doctype html><meta charset=utf-8><body>{CONTEXTS[self.context](self.text)}"

    @property
    def runs(self) -> bool:
        """Whether that document runs script without anybody's click."""
        calls = ("hbx(", "bx(", "alert(", "confirm(", "prompt(")
        waits = ("javascript:", "java&", "jav&", "data:text", "onclick", "onstart", "<scr<")
        is_frame = self.text.startswith("<iframe")
        has_call = any(call in self.text for call in calls)
        return has_call and (is_frame or not any(word in self.text.lower() for word in waits))

    @property
    def word(self) -> str:
        """The same without spaces and commas, as a tag has to be."""
        return self.text.replace(" ", "/").replace(",", ";")


def _corpus() -> Iterator[Hostile]:
    number = 0
    for context, texts in _TEXTS.items():
        for line in filter(None, map(str.strip, texts.splitlines())):
            number += 1
            yield Hostile(
                number, context, line.replace("@import", "\0").replace("@", str(number)).replace("\0", "@import")
            )


CORPUS = tuple(_corpus())


def bundles(limit: int, join: str = " ") -> list[str]:
    """All texts, as few as can be, `limit` characters each at most."""
    found: list[str] = []
    for each in CORPUS:
        if found and len(found[-1]) + len(join) + len(each.text) <= limit:
            found[-1] += join + each.text
        else:
            found.append(each.text)
    return found


def local_part(name: str) -> str:
    """As much of it as an e-mail address may have before the @, without spaces."""
    return name.replace('"', "").replace("\\", "").replace(" ", "/")


_WATCH = """
window.hbx = (number) => { window.hbxTell('ran', String(number)); };
document.addEventListener('securitypolicyviolation', (event) => {
  window.hbxTell('blocked', `${event.effectiveDirective} ${event.sample || event.blockedURI}`);
});
"""
# What waits for the next frame, such as focus and animations, has had it.
_SETTLED = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
_FOREIGN = """() => {
  const BANNED = new Set(['iframe', 'object', 'embed', 'base', 'frame', 'frameset', 'applet', 'marquee', 'video', 'audio',
    'source', 'math', 'style', 'animate', 'set', 'foreignobject', 'noscript', 'img']);
  const ADDRESSES = ['href', 'src', 'action', 'formaction', 'data', 'xlink:href', 'background', 'poster'];
  const isStatic = (address) => new URL(address, location.origin).href.startsWith(`${location.origin}/static/`);
  const isBad = (attribute) => {
    const name = attribute.name.toLowerCase();
    if (/^on/.test(name) || name.includes('hbx') || name === 'srcdoc') return true;
    if (name === 'style') return /fixed|animation/.test(attribute.value);
    if (['id', 'class', 'name'].includes(name)) return attribute.value.startsWith('hbx');
    if (/^(data-)?hx-(get|post)$/.test(name)) return attribute.value.startsWith('/hbx');
    if (!ADDRESSES.includes(name)) return false;
    let url;
    try { url = new URL(attribute.value, document.baseURI); } catch { return true; }
    return url.origin !== location.origin || url.pathname.startsWith('/hbx');
  };
  const isForeign = (element) => {
    const tag = element.localName;
    if (BANNED.has(tag) || tag.includes('-') || element instanceof HTMLUnknownElement) return true;
    if (tag === 'script') {
      return element.type !== 'application/json' && !(element instanceof HTMLScriptElement && element.src && isStatic(element.src));
    }
    if (tag === 'link' && !isStatic(element.href)) return true;
    if (tag === 'meta' && element.httpEquiv) return true;
    return [...element.attributes].some(isBad);
  };
  const parts = [...document.querySelectorAll('*')];
  document.querySelectorAll('template').forEach((each) => parts.push(...each.content.querySelectorAll('*')));
  return parts.filter(isForeign).map((element) => element.outerHTML.slice(0, 160));
}"""
_SHOWN = """() => {
  const found = [];
  const walk = document.createTreeWalker(document, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) found.push(node.data);
  document.querySelectorAll('.ln > span, .code .l').forEach((line) => found.push(line.textContent));
  document.querySelectorAll('*').forEach((element) => {
    if ('value' in element && typeof element.value === 'string') found.push(element.value);
    for (const attribute of element.attributes) found.push(attribute.value);
  });
  return found.join('\u0000');
}"""


@dataclass
class Detector:
    """What hostile text achieved in a context's pages since the last time somebody asked."""

    ran: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def watch(self, context: BrowserContext) -> None:
        """From now on, in every page and frame. Once, before the first page is opened."""
        context.expose_binding("hbxTell", lambda source, kind, text: getattr(self, kind).append(text))
        context.add_init_script(_WATCH)
        context.on("dialog", self._dismiss)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))

    def _dismiss(self, dialog: Dialog) -> None:
        if dialog.type != "beforeunload":
            self.dialogs.append(f"{dialog.type} {dialog.message}")
        dialog.accept()

    def clear(self) -> None:
        self.ran.clear()
        self.blocked.clear()
        self.dialogs.clear()
        self.errors.clear()

    def has_run(self) -> list[str]:
        return [*self.ran, *self.dialogs]

    def check(self, page: Page) -> None:
        """Nothing ran, nothing was stopped from running, and the page has no element or address but its own."""
        page.evaluate(_SETTLED)
        found = {"ran": self.has_run(), "blocked": self.blocked, "errors": self.errors, "elements": foreign(page)}
        assert not any(found.values()), f"{page.url}: {found}"


def foreign(page: Page) -> list[str]:
    """The elements that no page of ours has."""
    found: list[str] = page.evaluate(_FOREIGN)
    return found


def shown(page: Page) -> str:
    """All that the page says: texts, values and attributes, with NUL between them."""
    said: str = page.evaluate(_SHOWN)
    return said
