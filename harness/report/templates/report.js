for (const link of document.querySelectorAll("a.embedded")) {
  link.hidden = false;
  link.href = "#";
  link.addEventListener("click", () => {
    if (link.href.startsWith("blob:")) return;
    const text = atob(link.parentElement.querySelector("script").textContent);
    const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
    link.href = URL.createObjectURL(new Blob([bytes], { type: "application/gzip" }));
  });
}
