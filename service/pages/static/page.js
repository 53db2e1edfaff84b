// What the page does beyond htmx: says what changed, redraws plots, leaves the reader's place as it was when a part of
// the page is replaced, shows the slider's value, goes to what is wrong.
(function () {
  "use strict";
  var places = [];
  function parts() {
    return Array.from(document.querySelectorAll("#live details, #live summary, #live [tabindex]"));
  }
  document.addEventListener("htmx:beforeSwap", function () {
    places = parts().map(function (part) {
      return { open: part.open, left: part.scrollLeft, focused: part === document.activeElement };
    });
  });
  document.addEventListener("htmx:afterSwap", function () {
    var now = parts();
    if (now.length !== places.length) { return; }
    now.forEach(function (part, index) {
      if (places[index].open) { part.open = true; }
      part.scrollLeft = places[index].left;
      if (places[index].focused) { part.focus({ preventScroll: true }); }
    });
  });
  document.addEventListener("htmx:afterSettle", function () {
    var live = document.getElementById("live"), announcer = document.getElementById("announcer");
    if (!live || !announcer) { return; }
    if (announcer.textContent !== live.dataset.announce) { announcer.textContent = live.dataset.announce; }
    document.dispatchEvent(new Event("figures"));
  });
  var slider = document.getElementById("what-if-percent");
  if (slider) {
    slider.addEventListener("input", function () {
      document.getElementById("what-if-share").textContent = slider.value + "%";
    });
  }
  var problems = document.getElementById("problems");
  if (problems) { problems.focus(); }
})();
