TRUNCATE public.account, public.book;
INSERT INTO public.account VALUES ('Ann@x.org', 1);
INSERT INTO public.book VALUES ('0-306-40615-2', 'x');
