function t = clock_set(v)
global T
if nargin, T = v; end
if isempty(T), T = 0; end
t = T;
end
